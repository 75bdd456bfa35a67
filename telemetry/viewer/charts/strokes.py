"""The colours of lines: one for each run, or for each metric where there is one run."""

from __future__ import annotations

import colorsys
import warnings
from typing import Final, NamedTuple, TypeAlias

from telemetry.viewer.charts.chart import Chart

COLORS: Final = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777")
"""Paul Tol's bright scheme, which is told apart with any eyes: https://personal.sron.nl/~pault"""
Style: TypeAlias = str | tuple[float, tuple[float, ...]]
STYLES: Final[tuple[Style, ...]] = (
    *("-", "--", ":", "-."),
    *((0, (8, 2, 1, 2, 1, 2)), (0, (5, 4, 2, 4)), (0, (12, 3)), (0, (1, 4))),
)
"""Of the metrics of one panel, where the colour tells the run."""
NEUTRAL: Final = "#444444"


class Stroke(NamedTuple):
    """How a line is drawn.

    Attributes:
        color: As ``#RRGGBB``.
        style: Solid, dashed and so on, as matplotlib writes it.
    """

    color: str
    style: Style


class Entry(NamedTuple):
    """A line of a legend.

    Attributes:
        name: A run or a metric.
        color: Of the run, or of the metric, or neutral where the style tells the metric.
        style: As a stroke has it.
    """

    name: str
    color: str
    style: Style


class Legend(NamedTuple):
    """What a panel's legend has to tell.

    Attributes:
        metrics: By their styles, or by their colours where there is one run. They come first.
        runs: By their colours.
    """

    metrics: tuple[Entry, ...]
    runs: tuple[Entry, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, in order."""
        return self.metrics + self.runs

    def within(self, most: int) -> tuple[Entry, ...]:
        """As many as there is room for; half of it is for the metrics and half for the runs.

        Example:
            >>> metrics = tuple(Entry(f"metric{n}", NEUTRAL, STYLES[n]) for n in range(5))
            >>> runs = tuple(Entry(f"run{n}", COLORS[n], STYLES[0]) for n in range(5))
            >>> [entry.name for entry in Legend(metrics, runs).within(4)]
            ['metric0', 'metric1', 'run0', 'run1']
        """
        metrics = self.metrics[: max(most - len(self.runs), most // 2)]
        return metrics + self.runs[: most - len(metrics)]


def strokes_of(chart: Chart) -> list[list[Stroke]]:
    """How each line of each panel is drawn."""
    several = len(chart.runs) > 1
    by_run = dict(zip(chart.runs, palette(len(chart.runs)), strict=True))
    strokes = []
    for panel in chart.panels:
        metrics = list(dict.fromkeys(line.metric for line in panel.lines))
        by_metric = dict(zip(metrics, palette(len(metrics)), strict=True))
        strokes.append(
            [
                Stroke(by_run[line.run], STYLES[metrics.index(line.metric) % len(STYLES)])
                if several
                else Stroke(by_metric[line.metric], STYLES[0])
                for line in panel.lines
            ]
        )
    return strokes


def warn_of_alike(chart: Chart) -> None:
    """Say of which panels lines of one run look alike, because there are more than styles."""
    for panel in chart.panels:
        metrics = len({line.metric for line in panel.lines})
        if len(chart.runs) > 1 and metrics > len(STYLES):
            warnings.warn(
                f"The panel {panel.title!r} has {metrics} metrics of several runs, and only "
                f"{len(STYLES)} styles tell them apart: some look alike. Name fewer metrics.",
                stacklevel=4,
            )


def legend_of(chart: Chart, number: int) -> Legend:
    """What a panel's legend has to tell, beside its title and the legend of the first panel.

    With several runs and several metrics the colours are told and the styles, not each line.
    """
    panel = chart.panels[number]
    lines = list(zip(panel.lines, strokes_of(chart)[number], strict=True))
    several = len(chart.runs) > 1
    metrics = {
        line.metric: Entry(line.metric, NEUTRAL if several else each.color, each.style)
        for line, each in lines
    }
    runs = {line.run: Entry(line.run, each.color, STYLES[0]) for line, each in lines}
    tells_runs = several and (number == 0 or len(runs) < len(chart.runs))
    return Legend(
        tuple(metrics.values()) if len(metrics) > 1 else (),
        tuple(runs.values()) if tells_runs else (),
    )


def palette(count: int) -> list[str]:
    """So many colours, all different.

    Example:
        >>> palette(2)
        ['#4477AA', '#EE6677']
    """
    if count <= len(COLORS):
        return list(COLORS[:count])
    return [_hex(colorsys.hls_to_rgb(n / count, 0.35 + 0.2 * (n % 2), 0.65)) for n in range(count)]


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(part * 255):02X}" for part in color)
