"""Summaries of runs on a terminal, or in a file of text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from telemetry.cli.output.printable import printable
from telemetry.cli.summary import words
from telemetry.viewer.charts.labels import shorten_labels
from telemetry.viewer.summaries.metric_ends import MetricEnd
from telemetry.viewer.summaries.summary import Summary

_COLOURS: Final = {"finished": "green", "failed": "red", "no end": "yellow", "unknown": ""}
_BEST: Final = {"lowest": "a loss the lowest", "highest": "an accuracy or a reward the highest"}

LABEL: Final = 28
"""Characters of a run's name in a table of several."""
LEAST: Final = 12
"""Characters for what went wrong, so that its words stay whole."""
NAMED: Final = 5
"""Metrics that are named as left out."""


def show(what: RenderableType) -> None:
    """Print tables; without colours and lines where nobody looks at a terminal."""
    console = _console()
    with console.capture() as shown:  # click knows what to do when the output is closed
        console.print(what)
    lines = (line.rstrip() for line in shown.get().splitlines())
    click.echo("\n".join(lines).strip("\n"))


def in_full(run: Summary) -> RenderableType:
    """All that is told of one run."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text, colour in _facts(run):
        facts.add_row(name, Text(text, colour))
    if not run.metrics:
        return Group(facts, Text("\nIt has no metrics."))
    return Group(facts, Text(), _metrics(run))


def as_rows(runs: Sequence[Summary]) -> RenderableType:
    """A row for each of several runs, and one with as many metrics as there is room for."""
    labels = shorten_labels([run.run for run in runs], LABEL)
    ends = [end for run in runs for end in run.metrics]
    # Those that are good or bad first, because they are what runs are compared by.
    names = list(dict.fromkeys(end.name for end in sorted(ends, key=lambda end: not end.goal)))
    console = _console()
    fitting = takewhile(
        lambda count: _width(console, _values(runs, labels, names[:count])) <= console.width,
        range(2, len(names) + 1),
    )
    shown = max(fitting, default=min(1, len(names)))  # a metric at least, however narrow it is
    values: list[RenderableType] = [Text(), _values(runs, labels, names[:shown])] if names else []
    return Group(*_courses(console, runs, labels), *values, *_notes(ends, names, shown))


def _facts(run: Summary) -> Iterator[tuple[str, str, str]]:
    """Names, texts and colours."""
    named = [("run", printable(run.run), ""), ("files", printable(", ".join(run.files)), "")]
    named.append(("status", words.status(run.course), _COLOURS[run.course.status]))
    named.append(("time", words.span(run.course), ""))
    named.append(("steps", words.way(run.pace), ""))
    named.append(("speed", words.speed(run.pace), ""))
    if run.clipping is not None:
        name = "would clip" if run.clipping.dry_run else "clipped"
        named.append((name, words.clipping(run.clipping), ""))
    for name, lines, colour in (
        ("alerts", words.alerts(run), "yellow"),
        ("failures", words.failures(run), "red"),
        ("drops", words.drops(run), "red"),
    ):
        for number, line in enumerate(lines):
            named.append(("" if number else name, line, colour))
    if run.bad_lines:
        named.append(("bad lines", f"{run.bad_lines:,} that are no records", "red"))
    return ((name, text, colour) for name, text, colour in named if text)


def _metrics(run: Summary) -> Table:
    table = _table("metric", "last", "best")
    table.add_column("", overflow="fold", style="dim")
    for end in run.metrics:
        table.add_row(
            Text(printable(end.name)),
            words.number(end.last),
            words.best(end),
            words.where_best(end),
        )
    return table


def _courses(
    console: Console, runs: Sequence[Summary], labels: Sequence[str]
) -> Iterator[RenderableType]:
    """How they went; the troubles are lines below where there is no room for a column of them."""
    fits = _width(console, _ways(runs, labels, troubled=False)) + LEAST <= console.width
    yield _ways(runs, labels, troubled=fits)
    if not fits:
        for run, label in zip(runs, labels, strict=True):
            if trouble := words.troubles(run):
                yield Text(f"{label}: {trouble}", "red")


def _ways(runs: Sequence[Summary], labels: Sequence[str], *, troubled: bool) -> Table:
    table = _table("run", "status", "time", "steps")
    if troubled:
        table.add_column("trouble", overflow="fold")
    for run, label in zip(runs, labels, strict=True):
        course = run.course
        table.add_row(
            Text(label),
            Text(course.status, _COLOURS[course.status]),
            "" if course.duration_s is None else words.seconds(course.duration_s),
            words.steps(run.pace),
            *([Text(words.troubles(run), "red")] if troubled else []),
        )
    return table


def _values(runs: Sequence[Summary], labels: Sequence[str], names: Sequence[str]) -> Table:
    clips = any(run.clipping is not None for run in runs)
    table = _table("run", *(["clipped"] if clips else []), *map(printable, names))
    for run, label in zip(runs, labels, strict=True):
        ends = {end.name: end for end in run.metrics}
        clip = "" if run.clipping is None else words.clip_rate(run.clipping)
        cells = [_cell(ends[name]) if name in ends else "" for name in names]
        table.add_row(Text(label), *([clip] if clips else []), *cells)
    return table


def _notes(ends: Sequence[MetricEnd], names: Sequence[str], shown: int) -> Iterator[Text]:
    goals = {end.goal for end in ends if end.best is not None and end.name in names[:shown]}
    which = [text for goal, text in _BEST.items() if goal in goals]
    if which:
        yield Text(f"In brackets: the best value, of {', of '.join(which)}.", "dim")
    if left := names[shown:]:
        more = ", ".join(map(printable, left[:NAMED]))
        more += f" and {len(left) - NAMED:,} more" if len(left) > NAMED else ""
        yield Text(f"No room for {more}. Name what you want with --metrics.", "dim")


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _cell(end: MetricEnd) -> str:
    best = words.best(end)
    return f"{words.number(end.last)} ({best})" if best else words.number(end.last)


def _table(name: str, *others: str) -> Table:
    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 1))
    table.add_column(name, overflow="fold")
    for other in others:
        table.add_column(other, justify="left" if other == "status" else "right", no_wrap=True)
    return table


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
