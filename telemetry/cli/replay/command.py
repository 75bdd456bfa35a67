"""``telemetry replay``: a recorded run once more, through handlers or clippers."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any, Final

import click

from telemetry.cli.options.event_choice import Chosen, event_options
from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.options.targets import TargetsCommand, check_process, target_options, targets_of
from telemetry.cli.output.file_errors import file_errors
from telemetry.cli.replay.clipper_specs import ABOUT as ABOUT_CLIPPER
from telemetry.cli.replay.clipper_specs import complete_clipper
from telemetry.viewer.logs.sources import find_logs

HANDLERS_ONLY: Final = ("options", "events", "speed", "from_line", "dry_run")
CLIPPERS_ONLY: Final = ("out", "metric")


def _check_number(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Refuse what no range of click's refuses."""
    if isnan(value):
        raise click.BadParameter("It must be a number, got nan.")
    return value


@click.command(cls=TargetsCommand)
@click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=NamedPath())
@target_options("A handler to send the events to")
@event_options("rank=0")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, max=1e6),
    default=0.0,
    show_default=True,
    callback=_check_number,
    help="1 is as fast as it was, 10 is ten times as fast, 0 as fast as the handlers take it.",
)
@click.option(
    "--from-line",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Begin at this line of the file: go on where another replay was stopped.",
)
@click.option("--dry-run", is_flag=True, help="Send nothing; print what would be sent.")
@click.option(
    "--clipper",
    "clippers",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    shell_complete=complete_clipper,
    help=ABOUT_CLIPPER,
)
@click.option(
    "--metric",
    help="Of --clipper: the norms, by the name of their metric.  [default: what clippers reported, "
    "else training.grad_norm]",
)
@click.option(
    "--out",
    type=NamedPath(dir_okay=False),
    help="Of --clipper: a picture to draw (.png, .svg or .pdf).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    paths: tuple[Path, ...],
    names: tuple[str, ...],
    config: Path | None,
    clippers: tuple[str, ...],
    **given: Any,
) -> None:
    """Send a recorded run to handlers, or run gradient clippers over it.

    FILE is a log, plain or gzipped, a pattern of names, or a directory, all of whose logs are
    meant. With --to, its events reach the handlers in their order, with the times and steps that
    they had: a file becomes a run of W&B, or the events of yesterday reach another place today.
    Ctrl-C stops it in good order, and says from which line to go on. The exit status is 1 if an
    event was lost.

    With --clipper, clippers work on the gradient norms that were recorded, and their thresholds
    and clip rates are compared.

    \b
    telemetry demo --out runs --run-id demo
    telemetry replay runs/demo/metrics.jsonl \\
        --to wandb --option project=demo --option mode=offline
    telemetry replay run.jsonl --event training --to jsonl --option path=training.jsonl
    telemetry replay run.jsonl --out clippers.png \\
        --clipper autoclip:mode=percentile,percentile=95 --clipper zscore:zmax=3
    """  # noqa: D301 -- click looks for the character itself
    _check_together(context, to=bool(names or config), clippers=bool(clippers))
    if clippers:
        from telemetry.cli.replay import with_clippers  # noqa: PLC0415 -- --to does without

        with_clippers.run(
            paths,
            clippers,
            metric=given["metric"],
            where=given["where"],
            out=given["out"],
            as_json=given["as_json"],
        )
        return
    check_process()
    targets = targets_of(names, given["options"], config)
    chosen = Chosen(given["events"], given["where"])
    with file_errors():
        sources = find_logs(paths)
        if given["from_line"] > 1 and len(sources) > 1:
            raise click.UsageError(
                f"--from-line is of one file, and these are {len(sources)}. Name the file to go on "
                "with, and replay those after it in another call."
            )
        from telemetry.cli.replay.to_handlers import Recording, dry_run, run  # noqa: PLC0415 -- as above

        files = [source.path for source in sources]
        recording = Recording(files, chosen, from_line=given["from_line"])
        if given["dry_run"]:
            dry_run(recording, targets, as_json=given["as_json"])
        else:
            run(recording, targets, speed=given["speed"], as_json=given["as_json"])


def _check_together(context: click.Context, *, to: bool, clippers: bool) -> None:
    """Refuse options that do not belong together."""
    if to == clippers:
        raise click.UsageError(
            "--to and --clipper exclude each other." if to else "Write --to NAME or --clipper NAME."
        )
    command = context.command
    for parameter in command.params:
        name = parameter.name or ""
        if name not in (CLIPPERS_ONLY if to else HANDLERS_ONLY):
            continue
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            other = "--clipper" if to else "--to"
            raise click.UsageError(f"{parameter.opts[0]} is an option of {other}.")
