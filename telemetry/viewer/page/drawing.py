"""Curves as the screen shows them: smoothed, cut to what is looked at, with as few points as do."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from telemetry.viewer.charts.curves import Curve
from telemetry.viewer.frames.downsampling import keep
from telemetry.viewer.frames.points import Floats
from telemetry.viewer.frames.smoothing import SmoothMode, moving_average
from telemetry.viewer.page.axes import Axes
from telemetry.viewer.page.recorded import Points

MOST_ODD: Final = 50
"""Points of a curve that are not finite, of which the page marks no more than the first."""


class Look(NamedTuple):
    """How curves are looked at.

    Attributes:
        axis: What the horizontal axis is.
        start: From where on, -infinity for the beginning.
        end: Up to where.
        points: How many points a curve has at most.
        window: Over how many points it is smoothed.
        mode: How.
    """

    axis: str = "step"
    start: float = -np.inf
    end: float = np.inf
    points: int = 1000
    window: int = 1
    mode: SmoothMode = "mean"


def placed(points: Points, axes: Axes, run: int, axis: str) -> tuple[Points, Floats]:
    """The points of one run that have a place on an axis, in the order of places.

    Args:
        points: Those of a metric in all runs.
        axes: What places depend on.
        run: The number of the run.
        axis: Which axis.

    Returns:
        The points, and where they are.
    """
    mine = points if not points.run.any() and run == 0 else points.where(points.run == run)
    x = axes.places(mine, axis, run)
    there = np.isfinite(x)
    if not there.all():
        mine, x = mine.where(there), x[there]
    if (np.diff(x) >= 0).all():
        return mine, x
    order = np.argsort(x, kind="stable")
    return mine.where(order), x[order]


def draw(curve: Curve, look: Look) -> dict[str, Any]:
    """A curve for the page.

    Args:
        curve: All its points in order, as they were recorded.
        look: How it is looked at.

    Returns:
        ``x`` and ``y``; ``raw``, the same before smoothing, where it is smoothed; ``odd``, the
        places and names of values that no axis has, each beside the last one that it has.

    Example:
        >>> drawn = draw(Curve(np.array([1.0, 2, 3]), np.array([1.0, np.nan, 3])), Look())
        >>> drawn["x"].tolist(), drawn["odd"]
        ([1.0, 2.0, 3.0], [{'x': 2.0, 'y': 1.0, 'text': 'NaN'}])
    """
    smoothed = curve
    if look.window > 1:
        smoothed = Curve(curve.x, moving_average(curve.y, look.window, look.mode))
    drawn = shown(smoothed, look)
    told: dict[str, Any] = {"x": drawn.x, "y": drawn.y, "odd": _odd(drawn)}
    if look.window > 1:
        told["raw"] = shown(curve, look)._asdict()
    return told


def shown(curve: Curve, look: Look) -> Curve:
    """What is seen of a curve, and a point on either side of it, with its extremes."""
    first = max(int(np.searchsorted(curve.x, look.start)) - 1, 0)
    last = int(np.searchsorted(curve.x, look.end, side="right")) + 1
    x, y = curve.x[first:last], curve.y[first:last]
    kept = keep(x, y, look.points)
    return Curve(x[kept], y[kept])


def _odd(curve: Curve) -> list[dict[str, Any]]:
    strange = np.flatnonzero(~np.isfinite(curve.y))[:MOST_ODD]
    finite = np.flatnonzero(np.isfinite(curve.y))
    odd = []
    for index in strange:
        before = finite[max(np.searchsorted(finite, index) - 1, 0)] if len(finite) else None
        odd.append(
            {
                "x": float(curve.x[index]),
                "y": 0.0 if before is None else float(curve.y[before]),
                "text": _name_of(float(curve.y[index])),
            }
        )
    return odd


def _name_of(value: float) -> str:
    if np.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
