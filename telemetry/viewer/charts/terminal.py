"""A chart drawn with characters, by plotext."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

from telemetry.viewer.charts.chart import Chart, Panel
from telemetry.viewer.charts.labels import shorten_labels
from telemetry.viewer.charts.terminal_panel import LEAST_HEIGHT, THIN, Look, draw_panel

COLORS: Final = (12, 9, 10, 11, 14, 13, 7)
"""Of the 256 colours, those that each terminal shows as its theme says."""
MARKS: Final = "•x+o*#%@&=" + string.ascii_uppercase
"""What tells lines apart where there are no colours, or no more of them."""
MORE: Final = "  …"
MOST_ROWS: Final = 4
"""Of a heading."""
LEAST_WIDTH: Final = 40


def draw_text(chart: Chart, *, width: int, height: int, color: bool, log: bool = False) -> str:
    """Draw a chart with characters.

    A line has a gap where it is not finite, and where it is not above zero on a logarithmic axis.
    An infinity is a triangle at the edge.

    Args:
        chart: What to draw.
        width: Columns of the terminal.
        height: Lines of a panel.
        color: Whether colours tell the lines apart; otherwise characters do.
        log: Whether the vertical axes are logarithmic.

    Returns:
        Its lines, with escape sequences if there are colours.

    Raises:
        MissingExtraError: plotext is not installed.
    """
    width, height = max(width, LEAST_WIDTH), max(height, LEAST_HEIGHT)
    texts = []
    for panel, names in zip(chart.panels, _names(chart), strict=True):
        looks = _looks(len(panel.lines), color=color)
        texts.append(_heading(panel, names, looks, width))
        texts.append(draw_panel(panel.lines, looks, width=width, height=height, log=log))
    x_label = shorten_labels([chart.x_label], longest=width)[0]
    return "\n".join([*texts, " " * ((width - cell_len(x_label)) // 2) + x_label])


def _names(chart: Chart) -> list[list[str]]:
    several = len(chart.runs) > 1
    return [
        [f"{line.run} {line.metric}" if several else line.metric for line in panel.lines]
        if len({line.metric for line in panel.lines}) > 1
        else [line.run if several else "" for line in panel.lines]
        for panel in chart.panels
    ]


def _looks(count: int, *, color: bool) -> list[Look]:
    """How each line of a panel is drawn: thin while that tells it from the others."""
    if color:
        marks = [THIN, *MARKS]
        size = len(COLORS)
        return [Look(marks[n // size % len(marks)], COLORS[n % size]) for n in range(count)]
    return [Look(THIN if count == 1 else MARKS[n % len(MARKS)], None) for n in range(count)]


def _heading(panel: Panel, names: Sequence[str], looks: Sequence[Look], width: int) -> str:
    """The title of a panel and what its lines are, as much as a few lines have room for."""
    title = shorten_labels([panel.title], longest=width - len(MORE))[0]
    text = title if looks[0].color is None else f"\x1b[1m{title}\x1b[0m"
    used, row = cell_len(title), 1
    for name, (mark, color) in zip(shorten_labels(names), looks, strict=True):
        if not name:
            continue
        entry = f"  {'━' if mark == THIN else mark} {name}"
        used += cell_len(entry)
        if used > width - len(MORE):
            if row == MOST_ROWS or cell_len(entry) > width - len(MORE):
                return text + MORE
            text, used, row = text + "\n", cell_len(entry), row + 1
        text += entry if color is None else f"\x1b[38;5;{color}m{entry}\x1b[0m"
    return text
