"""``telemetry tail``: the last events of a log, and those that come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Final

import click

from telemetry.cli.endings import reader_is_gone
from telemetry.cli.options.event_choice import Chosen, event_options
from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.output.file_errors import file_errors
from telemetry.cli.output.printable import printable, printable_json
from telemetry.cli.tail.files import TailedFiles, name_of
from telemetry.cli.tail.tailed import Tailed, TailedEvent, UnreadableLines
from telemetry.errors import ShadowedPackageError
from telemetry.packages import check_package
from telemetry.viewer.logs.sources import Source

LOOK: Final = 0.25
"""Seconds between two looks at files that are followed."""
SEARCH: Final = 2.0
"""Seconds between two searches for files that have come."""
NAMED: Final = 1000
"""Lines in which names near to an unknown one are looked for."""
HOME: Final = Path("runs")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=NamedPath())
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0, max=sys.maxsize),
    default=10,
    show_default=True,
    help="How many events of each file to begin with.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@event_options("severity=critical or step=100")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are in the file.")
def tail(
    paths: tuple[Path, ...],
    count: int,
    follow: bool,
    events: tuple[str, ...],
    where: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the last events of a run, and with --follow those that come.

    PATH is a log, plain or gzipped, - for standard input, or a directory, of which the log that was
    written last is meant. By default it is the directory runs, or this one where there is none.
    Times are those of this machine's zone. The exit status is 1 if there was nothing to print.

    \b
    telemetry tail                            the newest run below runs/
    telemetry demo --out runs --run-id demo   a run to look at
    telemetry tail -f runs/demo --event alert --event training.epoch
    telemetry tail -n 1000 run.jsonl --where rank=0 --json | jq .measurements.loss
    """  # noqa: D301 -- click looks for the character itself
    chosen = Chosen(events, where)
    if not as_json:
        _check_handlers()
    bad = UnreadableLines()
    files = TailedFiles(paths or (HOME if HOME.is_dir() else Path(),), follow=follow)
    write = write_json if as_json else write_line
    try:
        with file_errors():
            if not _show(files, chosen, bad, count=count, follow=follow, write=write) and count:
                raise click.ClickException(_nothing(files.all, chosen))
    finally:
        bad.say_rest()


def write_json(event: TailedEvent, *, labelled: bool) -> None:
    """Print an event as it is in the file; on a terminal, with its control characters escaped."""
    click.echo(printable_json(event.text) if sys.stdout.isatty() else event.text)


def write_line(event: TailedEvent, *, labelled: bool) -> None:
    """Print an event as the console does, with its time.

    Args:
        event: What to print.
        labelled: Whether to say which file it is of.
    """
    from handlers.console_lines import BAD, line_of  # noqa: PLC0415 -- after the check

    entry = event.entry
    # JSON has no tuples: the console tells a name of several parts by them.
    metadata = {k: tuple(v) if type(v) is list else v for k, v in entry.metadata.items()}
    text, colour = line_of(entry.event, entry.measurements, metadata)
    before = [event.label] if labelled else []
    before += [] if entry.time_ns is None else [_clock(entry.time_ns)]
    mark = click.style(printable("  ".join(before)), dim=True) + "  " if before else ""
    click.echo(mark + click.style(text, fg=colour or None, bold=colour == BAD))


def _show(
    files: TailedFiles,
    chosen: Chosen,
    bad: UnreadableLines,
    *,
    count: int,
    follow: bool,
    write: Callable[..., None],
) -> bool:
    """Print what is there, and what comes; whether there was something."""
    with ExitStack() as stack:
        tails: list[Tailed] = []

        def add(new: Sequence[Path]) -> list[Tailed]:
            added = [
                stack.enter_context(closing(Tailed(Source(path, ""), chosen, bad))) for path in new
            ]
            tails.extend(added)
            if added:
                for tail, label in zip(tails, files.labels, strict=True):
                    tail.label = label
            return added

        new = files.new()
        there = [tail for tail, path in zip(add(new), new, strict=True) if path.exists()]
        last = [_timed(one.last(count, unfinished=not follow)) for one in there]
        shown = False
        for _, event in merge(*last, key=itemgetter(0)):
            write(event, labelled=len(tails) > 1)
            shown = True
        search = time.monotonic() + SEARCH
        while follow:
            for event in (event for one in tails for event in one.new()):
                write(event, labelled=len(tails) > 1)
                shown = True
            if files.has_pipe:
                break  # it has ended
            _wait()
            if time.monotonic() >= search:
                add(files.new())
                search = time.monotonic() + SEARCH
    return shown


def _timed(events: Iterable[TailedEvent]) -> Iterator[tuple[int, TailedEvent]]:
    """Events of one file with their times; one without has that of the one before it."""
    time_ns = 0
    for event in events:
        time_ns = time_ns if event.entry.time_ns is None else event.entry.time_ns
        yield time_ns, event


def _check_handlers() -> None:
    try:
        check_package("handlers")
    except ShadowedPackageError as error:
        raise click.ClickException(str(error)) from error


def _wait() -> None:
    if reader_is_gone():
        sys.exit(0)
    time.sleep(LOOK)


def _clock(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, tz=UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _nothing(files: Sequence[Path], chosen: Chosen) -> str:
    where = printable(", ".join(map(name_of, files)))
    if chosen.is_everything:
        return f"There is no record in {where}."
    names: set[str] = set()
    for path in filter(Path.is_file, files):
        with closing(Tailed(Source(path, ""), Chosen(), UnreadableLines())) as tailed:
            names.update(".".join(one.entry.event) for one in tailed.last(NAMED, unfinished=True))
    return f"No record in {where} is such an event.{chosen.hint(sorted(names))}"
