"""``telemetry demo``: train a small network with the bus in the middle."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from telemetry.cli.options.named_path import NamedPath
from telemetry.errors import MissingExtraError, ShadowedPackageError
from telemetry.extras import import_extra
from telemetry.packages import check_package

if TYPE_CHECKING:
    from telemetry.demo.training import Result


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["numpy", "torch"]),
    default="numpy",
    show_default=True,
    help="The framework that trains.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Epochs of 23 optimizer steps.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the split, the initial weights and the order of the batches.",
)
@click.option(
    "--out",
    type=NamedPath(file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where the run's directory is made.",
)
@click.option("--run-id", help="Name of the run and of its directory.  [default: from the time]")
def demo(backend: str, epochs: int, seed: int, out: Path, run_id: str | None) -> None:
    """Train a small network on handwritten digits, with the bus in the middle.

    An adaptive gradient clipper and a loss with two regularizers report to the bus; the console, a
    JSONL file and a handler function listen; a picture is drawn from the file. Takes seconds and
    needs no network.
    """
    try:
        _check_installation(backend)
    except (MissingExtraError, ShadowedPackageError) as error:
        raise click.ClickException(str(error)) from error
    directory = _make_directory(out, run_id or time.strftime("demo-%Y%m%d-%H%M%S"))
    from telemetry.demo.training import Options, run  # noqa: PLC0415 -- after the check

    result = run(Options(backend, epochs, seed, directory, every_step=sys.stdout.isatty()))
    click.echo(_summary(result, backend))


def _check_installation(backend: str) -> None:
    """Find out before the training, not after it, whether something is missing."""
    for package in ("clipping", "regularizers", "handlers"):
        check_package(package)
    for module in ("sklearn.datasets", "matplotlib.figure"):
        import_extra(module, extra="demo", feature="telemetry demo")
    if backend == "torch":
        import_extra("torch", extra="torch", feature="telemetry demo --backend torch")


def _make_directory(out: Path, run_id: str) -> Path:
    directory = out / run_id
    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise click.ClickException(
            f"The run {directory} exists already. Choose another --run-id or --out."
        ) from error
    except OSError as error:
        raise click.ClickException(f"Cannot make the run's directory: {error}") from error
    return directory


def _needs(backend: str) -> str:
    """What has to be installed for another backend."""
    if importlib.util.find_spec(backend) is not None:
        return ""
    return f"   after: pip install 'trainbus[{backend}]', or '.[{backend}]' in a checkout"


def _command() -> str:
    """How this program is started again."""
    if shutil.which("telemetry"):
        return "telemetry"
    script = Path(sys.argv[0])
    return str(script) if script.name == "telemetry" else "python -m telemetry"


def _summary(result: Result, backend: str) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    other = "torch" if backend == "numpy" else "numpy"
    command = _command()
    return f"""
Test accuracy {result.accuracy:.1%}. Optimizer steps by outcome of clipping: {outcomes}
(counted by the handler 'demo-outcomes', attached before the run and detached by its id).

Wrote   {result.log}    every event, one JSON object a line
        {result.picture}     the picture drawn from it

Try     {command} demo --backend {other}{_needs(other)}
        {command} events smartclip      what the clipper emits
        head -n 3 {result.log}
        docs/tutorial.md of the source: attach, span, write a handler, detach"""
