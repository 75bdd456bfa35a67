"""``plot_metrics``: a chart drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from telemetry.extras import import_extra
from telemetry.viewer.charts.bands import Band
from telemetry.viewer.charts.chart import Chart, Panel, chart_of, check_frames
from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.charts.labels import shorten_labels
from telemetry.viewer.charts.strokes import Legend, Stroke, legend_of, strokes_of, warn_of_alike
from telemetry.viewer.charts.treatment import check_treatment
from telemetry.viewer.frames.limits import Percentiles
from telemetry.viewer.frames.points import Floats
from telemetry.viewer.frames.smoothing import SmoothMode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

WIDTH: Final = 8.0
"""Inches; and of a panel, by how many there are in a column."""
HEIGHTS: Final = {1: 4.5, 2: 3.0}
LEAST_HEIGHT: Final = 2.4
IN_A_COLUMN: Final = 3
ENOUGH_POINTS: Final = 2000
"""Points of a line that a picture can show."""
FEW_POINTS: Final = 60
"""Up to so many points of a line have a mark each."""
MOST_IN_LEGEND: Final = 12
CHARACTERS: Final = 9
"""Of a title, for an inch of the picture."""
BOLD_CHARACTERS: Final = 7
FEWEST: Final = 12


def plot_metrics(
    data: DataFrame | Iterable[DataFrame],
    metrics: str | Iterable[str] | None = None,
    x_key: str = "step",
    labels: Sequence[str] | None = None,
    *,
    smooth: int | None = 0,
    smooth_mode: SmoothMode = "mean",
    clip: Percentiles | None = None,
    downsample: int | None = ENOUGH_POINTS,
    band: Band | None = None,
    log: bool = False,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw metrics of one run or several.

    Metrics whose names end alike, as ``train.loss`` and ``val.loss`` do, share a panel; so do a
    gradient norm and the threshold that clips it. Other metrics have panels of their own, with the
    same horizontal axis. Each run is a line of its own, whatever its name.

    Args:
        data: One frame of `read_jsonl`, or several.
        metrics: Names, prefixes and patterns as `filter_metrics` takes them. By default those that
            one looks at first: losses, gradient norms, the learning rate, evaluations.
        x_key: ``"step"``, which is counted on where it begins anew in each epoch; ``"epoch"``;
            ``"time"``, since the first record of each run; or any column of numbers.
        labels: A name for each frame, or for each run. By default those in the column ``run``.
        smooth: The window of `moving_average`; what was measured stays behind it, faint. A line
            with no more points than that, as evaluations have, stays as it is.
        smooth_mode: ``"mean"``, ``"centered"``, ``"ema"`` or ``"median"``.
        clip: Percentiles at which each line is clamped before it is smoothed, as `clip` takes them.
        downsample: How many points a line has at most, after smoothing; the extremes stay. None and
            0 keep all.
        band: One line for runs that differ in their seed only: their mean, with a band from the
            lowest to the highest (``"minmax"``) or of a standard deviation (``"std"``).
        log: Whether the vertical axes are logarithmic, which leaves out what is not above zero.
        title: What stands above it.
        size: Width and height in inches.
        figure: Where to draw, such as ``matplotlib.pyplot.figure()`` for a window. What is on it
            is removed.

    Returns:
        The figure, which pyplot knows nothing of unless it was given.

    Raises:
        TypeError: An argument has another type than it may have.
        ValueError: There are no metrics, or no metric or axis of such a name, or a value is not
            allowed.
        MissingExtraError: matplotlib is not installed.

    Warns:
        UserWarning: Values have no place on the axis, or more metrics share a panel than there are
            styles of lines.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"step": [1, 2], "train.loss": [2.5, 1.5]})
        >>> figure = plot_metrics(frame, ["train.loss"])
        >>> [axes.get_title("left") for axes in figure.axes]
        ['train.loss']
    """
    treatment = check_treatment(smooth, smooth_mode, clip, band, downsample)
    chart = chart_of(check_frames(data, "plot_metrics"), metrics, x_key, labels, treatment)
    return draw_chart(chart, log=log, title=title, size=size, figure=figure)


def draw_chart(
    chart: Chart,
    *,
    log: bool = False,
    title: str | None = None,
    size: tuple[float, float] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw a chart; the arguments are those of `plot_metrics`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = import_extra("matplotlib.figure", extra="viewer", feature="plot_metrics")
    columns = 1 if len(chart.panels) <= IN_A_COLUMN else 2 if len(chart.panels) <= 12 else 3  # noqa: PLR2004 -- as many as fit side by side
    rows = math.ceil(len(chart.panels) / columns)
    if figure is None:
        figure = figures.Figure(size or _size(rows, columns), layout="constrained")
    figure.clear()
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    strokes = strokes_of(chart)
    warn_of_alike(chart)
    for number, (axes, panel) in enumerate(zip(grid, chart.panels, strict=False)):
        room = int(figure.get_figwidth() / columns * BOLD_CHARACTERS)
        axes.set_title(
            shorten_labels([panel.title], longest=max(room, FEWEST))[0],
            loc="left",
            fontsize="medium",
            fontweight="bold",
            parse_math=False,
        )
        _draw_panel(axes, panel, strokes[number], log=log)
        _add_legend(axes, legend_of(chart, number))
        if number + columns >= len(chart.panels):  # the lowest of its column
            axes.set_xlabel(chart.x_label, parse_math=False)
            axes.tick_params(labelbottom=True)
    for axes in grid[len(chart.panels) :]:
        axes.set_visible(False)
    _set_title(figure, chart, title)
    return figure


def _size(rows: int, columns: int) -> tuple[float, float]:
    return WIDTH * (1 if columns == 1 else 0.75 * columns), rows * HEIGHTS.get(rows, LEAST_HEIGHT)


def _set_title(figure: Figure, chart: Chart, title: str | None) -> None:
    if title is None and len(chart.runs) == 1:
        title = chart.runs[0]
    if title:
        room = max(int(figure.get_figwidth() * CHARACTERS), FEWEST)
        lines = [shorten_labels([line], longest=room)[0] for line in title.splitlines()]
        figure.suptitle("\n".join(lines), fontsize="medium", parse_math=False)


def _draw_panel(axes: Axes, panel: Panel, strokes: Sequence[Stroke], *, log: bool) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    above = _above_zero(*(line.curve.y for line in panel.lines))
    log = log and len(above) > 0
    for line, stroke in zip(panel.lines, strokes, strict=True):
        _draw_line(axes, line, stroke, log=log)
    axes.margins(x=0.02)
    if log:
        _make_logarithmic(axes, above)


def _above_zero(*values: Floats) -> Floats:
    together = np.concatenate(values)
    return together[np.isfinite(together) & (together > 0)]


def _make_logarithmic(axes: Axes, above: Floats) -> None:
    axes.set_yscale("log", nonpositive="mask")
    if above.max() < 10 * above.min():  # without a power of ten among them, which has a short name
        tickers = import_extra("matplotlib.ticker", extra="viewer", feature="plot_metrics")
        axes.yaxis.set_major_formatter(tickers.StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(tickers.StrMethodFormatter("{x:g}"))


def _draw_line(axes: Axes, line: Line, stroke: Stroke, *, log: bool) -> None:
    few = len(line.curve.x) <= FEW_POINTS
    if line.raw is not None:
        axes.plot(*line.raw, color=stroke.color, alpha=0.2, linewidth=0.8, zorder=1.5)
    if line.low is not None and line.high is not None:
        _draw_band(axes, line.curve, line.low, line.high, color=stroke.color, log=log)
    axes.plot(
        *line.curve,
        color=stroke.color,
        linestyle=stroke.style,
        linewidth=1.5,
        marker="o" if few else "",
        markersize=3.5,
    )
    _mark_infinities(axes, line, stroke)


def _draw_band(
    axes: Axes, curve: Curve, low: Floats, high: Floats, *, color: str, log: bool
) -> None:
    """A logarithm has no place for an end that is not above zero: the band goes on to the floor."""
    where = np.isfinite(high)
    if log:
        where &= high > 0
        low = np.maximum(low, _above_zero(curve.y, low, high).min(initial=math.inf))
    axes.fill_between(curve.x, low, high, where=where, color=color, alpha=0.25, linewidth=0)


def _mark_infinities(axes: Axes, line: Line, stroke: Stroke) -> None:
    """A line has a gap at an infinity, and its edge a triangle."""
    for infinite, edge, marker in ((math.inf, 1.0, "^"), (-math.inf, 0.0, "v")):
        x = line.curve.x[line.curve.y == infinite]
        if len(x):
            axes.plot(
                x,
                np.full(len(x), edge),
                color=stroke.color,
                linestyle="",
                marker=marker,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )


def _add_legend(axes: Axes, legend: Legend) -> None:
    names = shorten_labels([entry.name for entry in legend.entries])
    if not names:
        return
    shown = legend.within(MOST_IN_LEGEND)
    lines = import_extra("matplotlib.lines", extra="viewer", feature="plot_metrics")
    left_out = len(names) - len(shown)
    drawn: Any = axes.legend(
        [lines.Line2D([], [], color=each.color, linestyle=each.style) for each in shown],
        ["-"] * len(shown),  # matplotlib leaves out names that begin with "_", and reads "$"
        framealpha=0.8,
        edgecolor="none",
        fontsize="small",
        title=f"{left_out} more entr{'y' if left_out == 1 else 'ies'}" if left_out else None,
        title_fontsize="small",
    )
    short = dict(zip(legend.entries, names, strict=True))
    for text, entry in zip(drawn.get_texts(), shown, strict=True):
        text.set_parse_math(False)
        text.set_text(short[entry])
