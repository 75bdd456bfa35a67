"""Lines of a chart, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from telemetry.viewer.frames.points import Floats


class Curve(NamedTuple):
    """Points in order."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        metric: What it shows.
        run: The label of its run, or of its runs.
        curve: Its points, smoothed if that was asked for.
        raw: Its points before smoothing, None where nothing was smoothed.
        low: The lower end of its band at each of its points, None without a band.
        high: The upper end.
    """

    metric: str
    run: str
    curve: Curve
    raw: Curve | None = None
    low: Floats | None = None
    high: Floats | None = None
