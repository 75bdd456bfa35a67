"""``telemetry plot --list``: the metrics that there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
import orjson

from telemetry.cli.output.printable import printable
from telemetry.cli.plot.drawing import names_with_values, reading, told
from telemetry.viewer.charts.digits import number_text
from telemetry.viewer.frames.selection import match_metrics
from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import Source
from telemetry.viewer.summaries.metric_ends import metric_ends


class Row(NamedTuple):
    """A metric of a run.

    Attributes:
        run: The run's label.
        metric: The metric's name.
        points: How many values it has.
        last: The last of them; NaN and infinities as text, which JSON has no form for.
        step: Its step, None where it has none.
    """

    run: str
    metric: str
    points: int
    last: float | str
    step: float | None


def list_metrics(sources: Sequence[Source], wanted: Sequence[str], *, as_json: bool) -> None:
    """Print how many values each run has of each metric, and the last of them.

    Args:
        sources: The logs.
        wanted: Which metrics, all if there are none.
        as_json: Whether it is JSON.

    Raises:
        click.ClickException: There are no metrics, or none of those.
    """
    with reading(sources, follow=False) as records, told():
        columns = find_columns(records)
        names = names_with_values(records, columns)
        if wanted:
            names = match_metrics(wanted, names)
        rows = list(_rows(records, [columns[name] for name in names]))
    if as_json:
        click.echo(orjson.dumps([row._asdict() for row in rows], option=orjson.OPT_INDENT_2))
        return
    for line in _table(rows):
        click.echo(line)


def _rows(records: Records, columns: Sequence[Column]) -> Iterator[Row]:
    runs = find_runs(records)
    ends = sorted(metric_ends(records, columns), key=lambda found: found[0])
    for place, end in ends:
        last = end.last if math.isfinite(end.last) else _text_of(end.last)
        yield Row(runs[place], end.name, end.values, last, end.last_step)


def _text_of(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """A block for each run, its name above it if there are several."""
    header = ("metric", "values", "last", "at step")
    runs = list(dict.fromkeys(row.run for row in rows))
    for run in runs:
        if len(runs) > 1:
            yield click.style(printable(run), bold=True)
        cells = [
            (
                printable(row.metric),
                f"{row.points:,}",
                row.last if isinstance(row.last, str) else number_text(row.last),
                "" if row.step is None else number_text(row.step, digits=12),
            )
            for row in rows
            if row.run == run
        ]
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for number, (name, *numbers) in enumerate([header, *cells]):
            padded = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
            line = "  ".join([name.ljust(widths[0]), *padded]).rstrip()
            yield click.style(line, dim=True) if number == 0 else line
