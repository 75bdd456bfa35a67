"""What is done to the lines of a chart before they are drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from telemetry.viewer.charts.bands import Band, banded, check_band
from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.frames.downsampling import check_points, keep
from telemetry.viewer.frames.limits import Limits, Percentiles, check_percentiles, clamp
from telemetry.viewer.frames.smoothing import SmoothMode, check_mode, check_window, moving_average


class Treatment(NamedTuple):
    """What is done to each line, in this order."""

    clip: Limits | None
    window: int
    mode: SmoothMode
    band: Band | None
    points: int | None


def check_treatment(
    smooth: int | None,
    smooth_mode: SmoothMode,
    clip: Percentiles | None,
    band: Band | None,
    downsample: int | None,
) -> Treatment:
    """What is done to each line, if it can be done.

    Raises:
        TypeError: A value has another type than it may have.
        ValueError: A value is not allowed.
    """
    check_band(band)
    check_mode(smooth_mode)
    points = check_points(downsample) if downsample not in (None, 0) else None
    limits = None if clip is None else check_percentiles(clip)
    return Treatment(limits, check_window(smooth), smooth_mode, band, points)


def treated(lines: list[Line], treatment: Treatment, *, by_name: bool) -> list[Line]:
    """The lines as they are drawn: clipped first, then smoothed, then made fewer.

    Args:
        lines: As they were recorded.
        treatment: What is done.
        by_name: Whether a band is made of runs with names that differ in a number only, and not of
            those with one label.

    Raises:
        ValueError: There is nothing to make a band of.
    """
    if treatment.clip is not None:
        lines = [
            replace(line, curve=Curve(line.curve.x, clamp(line.curve.y, treatment.clip)))
            for line in lines
        ]
    if treatment.window > 1:
        lines = [_smoothed(line, treatment) for line in lines]
    if treatment.band is not None:
        lines = banded(lines, treatment.band, by_name=by_name)
    if treatment.points is not None:
        lines = [_thinned(line, treatment.points) for line in lines]
    return lines


def _smoothed(line: Line, treatment: Treatment) -> Line:
    x, y = line.curve
    if len(y) <= treatment.window:
        return line  # its average would be that of everything before
    return replace(
        line, curve=Curve(x, moving_average(y, treatment.window, treatment.mode)), raw=line.curve
    )


def _thinned(line: Line, points: int) -> Line:
    x, y = line.curve
    if line.low is not None and line.high is not None:
        kept = [keep(x, values, points) for values in (line.low, y, line.high)]
        here = np.unique(np.concatenate(kept))
        return replace(
            line, curve=Curve(x[here], y[here]), low=line.low[here], high=line.high[here]
        )
    here = keep(x, y, points)
    raw = line.raw
    if raw is not None:
        there = keep(*raw, points)
        raw = Curve(raw.x[there], raw.y[there])
    return replace(line, curve=Curve(x[here], y[here]), raw=raw)
