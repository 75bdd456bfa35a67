"""``telemetry plot`` with characters: printed once, or on a screen again and again."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click
from rich.cells import cell_len, chop_cells, set_cell_size

from telemetry.cli.output.printable import printable
from telemetry.viewer.charts.chart import Chart, Panel
from telemetry.viewer.charts.labels import shorten_labels
from telemetry.viewer.charts.terminal import draw_text
from telemetry.viewer.charts.terminal_panel import LEAST_HEIGHT

if TYPE_CHECKING:
    from telemetry.cli.plot.drawing import Request

UNKNOWN: Final = (100, 40)
"""Columns and lines of a terminal that does not say."""
USUAL_HEIGHT, MOST_HEIGHT = 15, 20
"""Lines of a panel, where there is no terminal, and where there is."""
REMARKS: Final = 3
"""The part of a screen's lines that remarks may have is one in so many."""
NO_BAND: Final = "Characters show the mean without its band."


class Terminal:
    """Standard output."""

    def __init__(self, asked: Request) -> None:
        self._asked = asked

    def __call__(self, chart: Chart) -> None:
        """Print the chart."""
        if self._asked.band:
            warnings.warn(NO_BAND, stacklevel=2)
        columns, lines = shutil.get_terminal_size(UNKNOWN)
        _echo(_drawn(chart, self._asked, columns, lines if sys.stdout.isatty() else None))


class Screen:
    """A terminal that shows what is followed, and is cleared before each drawing.

    Attributes:
        remarks: What stands below the next drawing.
    """

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self.remarks: Sequence[str] = ()

    def __call__(self, chart: Chart) -> None:
        """Show as many panels as there is room for, and the names of the others."""
        columns, lines = shutil.get_terminal_size(UNKNOWN)
        below = _cut([*self.remarks, *([f"Warning: {NO_BAND}"] * bool(self._asked.band))], columns)
        below = _as_much(below, lines // REMARKS)
        room = lines - len(below) - 1  # below is the cursor's own line
        text = _drawn(chart, self._asked, columns, room + 1)
        shown = len(chart.panels)
        while text.count("\n") >= room and shown > 1:
            shown = min(shown - 1, max(1, (room - 3) // (LEAST_HEIGHT + 1)))
            kept = chart._replace(panels=chart.panels[:shown])
            text = _drawn(kept, self._asked, columns, room)
            text += f"\n{_left_out(chart.panels[shown:], columns)}"
        _echo("\n".join([f"\x1b[H\x1b[2J{text}", *below]))


def _drawn(chart: Chart, asked: Request, columns: int, lines: int | None) -> str:
    """The chart in so many lines, or nearly; in as many as is usual for None."""
    height = USUAL_HEIGHT if lines is None else (lines - 3) // len(chart.panels) - 1
    text = draw_text(
        chart,
        width=columns,
        height=min(height, MOST_HEIGHT),
        color=_has_color(),
        log=asked.log,
    )
    return f"{shorten_labels([asked.title], columns)[0]}\n{text}" if asked.title else text


def _has_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _echo(text: str) -> None:
    encoding = sys.stdout.encoding
    # Where colours are not wanted there are none in it, but there is what clears a screen.
    click.echo(text.encode(encoding, "replace").decode(encoding), color=sys.stdout.isatty())


def _cut(texts: Sequence[str], columns: int) -> list[str]:
    """Texts in lines that a terminal does not break."""
    return [line for text in texts for line in chop_cells(printable(text), columns)]


def _as_much(lines: list[str], most: int) -> list[str]:
    """As many lines as may be, of which the last says if there are more."""
    return lines if len(lines) <= most else [*lines[: most - 1], "…"]


def _left_out(panels: Sequence[Panel], width: int) -> str:
    """That there are more panels than the screen has room for."""
    begin, end = f"and {len(panels)} more panel{'s' * (len(panels) > 1)}: ", "; name --metrics"
    names = printable(", ".join(panel.title for panel in panels))
    room = width - len(begin) - len(end)
    if cell_len(names) > room:
        names = set_cell_size(names, max(room - 1, 0)) + "…"
    return begin + names + end
