"""A picture of gradient norms with the thresholds of clippers, and of what they clipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry.extras import import_extra
from telemetry.viewer.frames.downsampling import keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RUNS: Final = 12
"""Panels that one picture has room for."""
POINTS: Final = 4000
"""Of a curve; more cannot be told apart."""
COLUMNS: Final = 600
"""Places at which clipped steps can be marked."""
LEAST: Final = 0.3
"""The height of the smallest mark, in rows."""
WIDTH: Final = 9.0
"""Inches, as are the heights."""
PANEL: Final = 3.0
STRIP: Final = 0.2

# Told apart by the colour-blind: Okabe and Ito (2008), https://jfly.uni-koeln.de/color/
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NORM: Final = "#9a9a9a"
RECORDED: Final = "#222222"


class Line(NamedTuple):
    """A clipper in a picture.

    Attributes:
        name: For the legend.
        thresholds: Of each step, NaN where there is none. A clipper that would have ended the
            training has those up to there.
        clipped: Of the same steps, whether something was clipped.
        recorded: Whether this is the clipper that clipped the run.
        grouped: Whether each of several groups has a threshold of its own.
    """

    name: str
    thresholds: NDArray[np.float64]
    clipped: NDArray[np.bool_]
    recorded: bool
    grouped: bool = False

    @property
    def label(self) -> str:
        """The name, and why there is no curve if there is none."""
        if np.isfinite(self.thresholds).any():
            return self.name
        return f"{self.name} ({'a threshold per group' if self.grouped else 'no threshold'})"


class Panel(NamedTuple):
    """A run in a picture.

    Attributes:
        title: What it is called.
        axis: What its steps are.
        steps: Their numbers.
        norms: The gradient norm of each.
        lines: The clippers.
    """

    title: str
    axis: str
    steps: NDArray[np.float64]
    norms: NDArray[np.float64]
    lines: Sequence[Line]


def draw_comparison(panels: Sequence[Panel]) -> Figure:
    """Draw each run by itself: the norm with the thresholds, and below it the clipped steps.

    Args:
        panels: The runs.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: There are more runs than a picture has room for, or none.

    Example:
        >>> steps = np.arange(1.0, 5.0)
        >>> line = Line("zscore", np.array([np.nan, 2, 2, 2]), steps == 3, recorded=False)
        >>> figure = draw_comparison([Panel("a", "step", steps, np.array([1, 1, 9, 1.0]), [line])])
        >>> [axes.get_title("left") for axes in figure.axes]
        ['a', '']
    """
    check_runs(len(panels))
    matplotlib = import_extra("matplotlib.figure", extra="viewer", feature="A picture of clippers")
    strips = [STRIP * (len(panel.lines) + 1) for panel in panels]
    heights = [height for strip in strips for height in (PANEL, strip)]
    extra = sum(0.45 + 0.2 * (1 + len(panel.lines)) for panel in panels)
    figure: Figure = matplotlib.Figure((WIDTH, sum(heights) + extra), layout="constrained")
    axes = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights})
    for panel, curves, marks in zip(panels, axes[::2], axes[1::2], strict=True):
        _draw_curves(curves, panel)
        _draw_marks(marks, panel)
        marks.sharex(curves)
        curves.tick_params(labelbottom=False)
    return figure


def check_runs(count: int) -> None:
    """Raise ValueError for more runs than a picture has room for, or none."""
    if not 1 <= count <= MOST_RUNS:
        raise ValueError(
            f"A picture has room for 1 to {MOST_RUNS} runs, and there are {count}. Name fewer "
            "files, or leave the picture out."
        )


def _draw_curves(axes: Any, panel: Panel) -> None:
    finite = np.isfinite(panel.norms)
    shown = keep(panel.steps, panel.norms, POINTS)
    axes.plot(
        panel.steps[shown],
        np.where(finite, panel.norms, np.nan)[shown],
        color=NORM,
        linewidth=0.8,
        label="gradient norm",
    )
    for line, colour in zip(panel.lines, _colours(panel.lines), strict=True):
        steps = panel.steps[: len(line.thresholds)]
        some = keep(steps, line.thresholds, POINTS)
        axes.plot(
            steps[some],
            line.thresholds[some],
            color=colour,
            linewidth=1.4,
            linestyle=(0, (4, 2)) if line.recorded else "solid",
            zorder=3 if line.recorded else 2,  # one that does the same would hide it
            label=line.label,
        )
    if (~finite).any():
        top = axes.get_xaxis_transform()
        lost = _places(panel.steps[~finite])[0]
        axes.plot(
            lost,
            np.full(len(lost), 0.97),
            "x",
            color="#c00000",
            transform=top,
            markersize=5,
            label="norm not finite",
        )
    if (panel.norms[finite] > 0).any():
        axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("gradient norm")
    axes.set_title(panel.title, loc="left", fontsize="medium", parse_math=False)
    axes.grid(visible=True, which="major", color="#e6e6e6", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _put_legend(axes)


def _put_legend(axes: Any) -> None:
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.08), frameon=False, fontsize="small", ncols=1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_marks(axes: Any, panel: Panel) -> None:
    """A row for each clipper, with a mark where it clipped, taller the more it did so there."""
    places, of_step = _places(panel.steps)
    total = np.bincount(of_step, minlength=len(places))
    shares = [
        np.bincount(of_step[: len(line.clipped)][line.clipped], minlength=len(places)) / total
        for line in panel.lines
    ]
    peak = max((share.max(initial=0.0) for share in shares), default=0.0)
    for row, (share, colour) in enumerate(zip(shares, _colours(panel.lines), strict=True)):
        at = share > 0
        base = np.full(at.sum(), row + 0.4)
        axes.vlines(
            places[at], base, base - LEAST - (0.8 - LEAST) * share[at] / peak, colour, linewidth=0.9
        )
    rates = [f"{line.clipped.mean():.1%}" if len(line.clipped) else "" for line in panel.lines]
    axes.set_yticks(range(len(rates)), rates, fontsize="small")
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_ylabel("clipped", rotation=0, ha="right", va="center")
    axes.set_xlabel(panel.axis)
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _places(steps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """So few places that each can be seen, and at which of them a step is."""
    width = (steps.max() - steps.min()) / COLUMNS if len(steps) else 0.0
    columns = np.floor((steps - steps.min()) / width) if width else steps
    _, first, of_step = np.unique(columns, return_index=True, return_inverse=True)
    return steps[first], of_step


def _colours(lines: Sequence[Line]) -> list[str]:
    others = iter(range(len(lines)))
    return [RECORDED if line.recorded else COLOURS[next(others) % len(COLOURS)] for line in lines]
