"""One panel of a chart of characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from telemetry.extras import import_extra
from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.charts.ticks import log_ticks, round_ticks, tick_texts
from telemetry.viewer.frames.points import Floats

LEAST_HEIGHT: Final = 10
FRAME: Final = 3
"""Lines above and below what is drawn."""
LEAST_TICKS, MOST_TICKS = 4, 6
THIN: Final = "braille"
"""What plotext calls lines of small dots."""
Shown: TypeAlias = NDArray[np.bool_]


class Look(NamedTuple):
    """How a line is drawn.

    Attributes:
        mark: A character, or `THIN`.
        color: One of 256, None for the terminal's own.
    """

    mark: str
    color: int | None


def draw_panel(
    lines: Sequence[Line], looks: Sequence[Look], *, width: int, height: int, log: bool
) -> str:
    """Draw lines with characters; an infinity is a triangle at the edge.

    Args:
        lines: What to draw.
        looks: How, for each.
        width: Columns.
        height: Lines of text, `LEAST_HEIGHT` at least.
        log: Whether the vertical axis is logarithmic.

    Raises:
        MissingExtraError: plotext is not installed.
    """
    plotext: Any = import_extra("plotext", extra="viewer", feature="telemetry plot --terminal")
    shown = [np.isfinite(line.curve.y) & ((line.curve.y > 0) | (not log)) for line in lines]
    ys = np.concatenate([line.curve.y[each] for line, each in zip(lines, shown, strict=True)])
    if not len(ys):
        return "  no finite value above zero" if log else "  no finite value"
    plotext.terminal.limit(
        width=False, height=False
    )  # a width is given, and what is above scrolls away
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    xs = np.concatenate([line.curve.x for line in lines])
    _rule(figure.ruler("x"), xs, round_ticks(xs.min(), xs.max(), MOST_TICKS))
    most = min(max((height - FRAME) // 2, LEAST_TICKS), MOST_TICKS)
    ticks = (log_ticks if log else round_ticks)(ys.min(), ys.max(), most)
    edges = _rule(figure.ruler("y"), ys, ticks, log=log)
    for line, look, each in zip(lines, looks, shown, strict=True):
        for curve in _pieces(line.curve, each):
            figure.draw(_signal(plotext, Curve(curve.x, _scaled(curve.y, log=log)), look).lines())
    for line, look in zip(lines, looks, strict=True):
        for mark, curve in _triangles(line.curve, edges):
            figure.draw(_signal(plotext, curve, look._replace(mark=mark)))
    text: str = figure.build().string(colorless=all(look.color is None for look in looks))
    figure.clear()
    return text.rstrip("\n")


def _scaled(values: Floats, *, log: bool) -> Floats:
    # plotext's own logarithmic axis fails where all values are the same
    return np.log10(values) if log else values


def _rule(
    ruler: Any, values: Floats, ticks: Sequence[float], *, log: bool = False
) -> tuple[float, float]:
    """Set the ends and the numbers of an axis.

    Returns:
        The ends.
    """
    low, high = _scaled(np.array([values.min(), values.max()]), log=log).tolist()
    if low == high:
        room = abs(low) / 10 or 1.0
        low, high = low - room, high + room
    ruler.lim(low, high)
    ruler.ticks(_scaled(np.array(ticks), log=log).tolist(), tick_texts(ticks))
    return low, high


def _pieces(curve: Curve, shown: Shown) -> Iterator[Curve]:
    """The parts of a curve between its gaps."""
    places = np.flatnonzero(shown)
    for piece in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        if len(piece):
            yield Curve(curve.x[piece], curve.y[piece])


def _triangles(curve: Curve, edges: tuple[float, float]) -> Iterator[tuple[str, Curve]]:
    for mark, infinity, edge in zip("▼▲", (-np.inf, np.inf), edges, strict=True):
        x = curve.x[curve.y == infinity]
        if len(x):
            yield mark, Curve(x, np.full(len(x), edge))


def _signal(plotext: Any, curve: Curve, look: Look) -> Any:
    marker = look.mark if look.color is None else plotext.marker(look.mark, look.color)
    return plotext.figure.signal(curve.x.tolist(), curve.y.tolist(), marker=marker)
