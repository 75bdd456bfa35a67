"""``telemetry summary``: what became of runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from telemetry.cli.options.many_values import ManyValues, ManyValuesCommand
from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.output.printable import print_json, printable
from telemetry.cli.plot.command import complete_metric


@click.command(
    cls=ManyValuesCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("paths", nargs=-1, metavar="[RUN]...", type=NamedPath())
@click.option(
    "--metrics",
    cls=ManyValues,
    metavar="NAME...",
    shell_complete=complete_metric,
    help="Names (train.loss), prefixes (val.) or patterns ('*.loss').  [default: losses, gradient "
    "norms, the learning rate, evaluations]",
)
@click.option("--json", "as_json", is_flag=True, help="A list with an object for each run.")
def summary(paths: tuple[Path, ...], metrics: tuple[str, ...], as_json: bool) -> None:
    """Sum up runs: how they ended, how far they came, and what went wrong.

    RUN is a JSONL file, plain or gzipped, a pattern, or a directory, all of whose logs are meant.
    By default it is the directory runs, or this one where there is none. One run is told in full,
    of several each is a row.

    The best value of a loss or an error is its lowest, that of an accuracy, a score or a reward
    its highest; other metrics have none. A run that has not ended is running, or was killed.

    \b
    telemetry demo --out runs --run-id demo
    telemetry summary runs/demo
    telemetry summary runs --metrics training.loss test.accuracy
    telemetry summary runs --json | jq '.[] | select(.course.status == "failed") | .run'
    """  # noqa: D301 -- click looks for the character itself
    from telemetry.cli.plot.drawing import HOME, reading, told  # noqa: PLC0415 -- it needs NumPy
    from telemetry.cli.summary.table import as_rows, in_full, show  # noqa: PLC0415 -- it needs rich
    from telemetry.viewer.logs.sources import find_logs  # noqa: PLC0415 -- as above
    from telemetry.viewer.summaries.summary import summaries  # noqa: PLC0415 -- as above

    with told():
        sources = find_logs(paths or (HOME if HOME.is_dir() else Path(),))
    with reading(sources, follow=False) as records, told():
        runs = summaries(records, metrics or None)
    with_records = {file for run in runs for file in run.files}
    files = [str(source.path) for source in sources if str(source.path) not in with_records]
    without = printable(f"There is no record in {', '.join(files)}.") if files else ""
    if not runs:
        raise click.ClickException(without)
    if without:
        click.echo(f"Warning: {without}", err=True)
    if as_json:
        from telemetry.values import jsonable  # noqa: PLC0415 -- as above

        print_json([jsonable(asdict(run)) for run in runs])
        return
    show(in_full(runs[0]) if len(runs) == 1 else as_rows(runs))
