"""A chart drawn with characters, by plotext."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from telemetry.extras import import_extra
from telemetry.viewer.charts.chart import Chart, Panel
from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.charts.digits import number_text
from telemetry.viewer.charts.labels import shorten_labels

COLORS: Final = (12, 9, 10, 11, 14, 13, 7)
"""Of the 256 colours, those that each terminal shows as its theme says."""
MARKS: Final = "•x+o*#%"
"""What tells lines apart where there are no colours."""
MORE: Final = "  …"
MOST_ROWS: Final = 4
"""Of a heading."""
LEAST_WIDTH, LEAST_HEIGHT = 40, 10
TICKS: Final = 6


def draw_text(chart: Chart, *, width: int, height: int, color: bool, log: bool = False) -> str:
    """Draw a chart with characters.

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
    names = _names(chart)
    texts = []
    for number, panel in enumerate(chart.panels):
        texts.append(_heading(panel, names[number], width, color=color))
        texts.append(_drawn(panel, width, height, color=color, log=log))
    x_label = shorten_labels([chart.x_label], longest=width)[0]
    return "\n".join([*texts, x_label.center(width).rstrip()])


def _names(chart: Chart) -> list[list[str]]:
    several = len(chart.runs) > 1
    return [
        [f"{line.run} {line.metric}" if several else line.metric for line in panel.lines]
        if len({line.metric for line in panel.lines}) > 1
        else [line.run if several else "" for line in panel.lines]
        for panel in chart.panels
    ]


def _heading(panel: Panel, names: Sequence[str], width: int, *, color: bool) -> str:
    """The title of a panel and what its lines are, as much as a few lines have room for."""
    title = shorten_labels([panel.title], longest=width - len(MORE))[0]
    text, used, row = f"\x1b[1m{title}\x1b[0m" if color else title, len(title), 1
    for number, name in enumerate(shorten_labels(names)):
        if not name:
            continue
        entry = f"  {_mark(number, len(names), color=color)} {name}"
        used += len(entry)
        if used > width - len(MORE):
            if row == MOST_ROWS or len(entry) > width - len(MORE):
                return text + MORE
            text, used, row = text + "\n", len(entry), row + 1
        text += f"\x1b[38;5;{COLORS[number % len(COLORS)]}m{entry}\x1b[0m" if color else entry
    return text


def _mark(number: int, count: int, *, color: bool) -> str:
    return "━" if color or count == 1 else MARKS[number % len(MARKS)]


def _drawn(panel: Panel, width: int, height: int, *, color: bool, log: bool) -> str:
    plotext: Any = import_extra("plotext", extra="viewer", feature="telemetry plot --terminal")
    curves = [_shown(line, log=log) for line in panel.lines]
    filled = [curve for curve in curves if len(curve.x)]
    if not filled:
        return "  no value above zero" if log else "  no finite value"
    plotext.terminal.limit(
        width=False, height=False
    )  # a width is given, and what is above scrolls away
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    for number, curve in enumerate(curves):
        if len(curve.x):
            figure.draw(_signal(plotext, curve, number, len(curves), color=color))
    if log:
        figure.ruler("y").scale("log")
    ticks = list(_ticks(min(c.x.min() for c in filled), max(c.x.max() for c in filled)))
    figure.ruler("x").ticks(ticks, tick_texts(ticks))
    text: str = figure.build().string(colorless=not color)
    figure.clear()
    return text.rstrip("\n")


def _shown(line: Line, *, log: bool) -> Curve:
    x, y = line.curve
    shown = np.isfinite(y) & ((y > 0) | (not log))
    return Curve(x[shown], y[shown])


def _signal(plotext: Any, curve: Curve, number: int, count: int, *, color: bool) -> Any:
    if color:
        marker = plotext.marker("braille", COLORS[number % len(COLORS)])
    else:
        marker = "braille" if count == 1 else MARKS[number % len(MARKS)]
    signal = plotext.figure.signal(curve.x.tolist(), curve.y.tolist(), marker=marker)
    signal.lines()
    return signal


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """The numbers of an axis, each with as many digits as it takes.

    Example:
        >>> tick_texts([1234567.0, 1234568.0]), tick_texts([1000.25, 1000.5])
        (['1,234,567', '1,234,568'], ['1000.25', '1000.5'])
    """
    apart = min((after - before for before, after in itertools.pairwise(ticks)), default=0.0)
    largest = max(map(abs, ticks), default=0.0)
    digits = 4 if apart <= 0 else math.ceil(math.log10(max(largest / apart, 1))) + 2
    return [number_text(tick, min(max(digits, 4), 15)) for tick in ticks]


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round numbers between two others."""
    if not high > low:
        yield low
        return
    rough = (high - low) / TICKS
    power: float = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 0.0
    if power == 0:  # they are too near to each other
        yield low
        return
    step = next((power * times for times in (1, 2, 5) if power * times >= rough), power * 10)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield number * step
