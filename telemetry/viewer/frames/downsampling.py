"""Fewer points of a curve, with its extremes kept."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from telemetry.viewer.frames.axes import check_axis, positions
from telemetry.viewer.frames.points import Floats, Indices, check_frame, metrics_of, runs_of

if TYPE_CHECKING:
    from pandas import DataFrame

FEWEST: Final = 5
"""The first point, the last, and three of one bucket: lowest, highest, first that is not finite."""


def downsample(data: DataFrame, points: int, *, x_key: str = "step") -> DataFrame:
    """Keep so many points of each metric of each run at most, the extremes among them.

    The axis is cut into buckets of equal width. Of each the lowest and the highest point stay, and
    the first that is not finite; so do the first and the last of the curve. Points keep their
    order and their values, so no spike is lost or invented. Smooth first: what is smoothed after
    it is another curve.

    Args:
        data: The frame that `read_jsonl` gives.
        points: How many points stay of each curve at most, 5 or more.
        x_key: The axis that the buckets cut, as `plot_metrics` takes it. Where there is no step, or
            the axis goes back, points are counted instead.

    Returns:
        A frame with fewer rows. A row that stays for one metric has no value of the others, unless
        it stays for them as well.

    Raises:
        TypeError: The data is no frame, or points is no whole number.
        ValueError: There are fewer than 5 points, or no such axis.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"step": range(9), "loss": [1.0, 1, 1, 9, 1, 1, 0, 1, 1]})
        >>> downsample(frame, 6)["loss"].tolist()
        [1.0, 9.0, 1.0, 0.0, 1.0]
    """
    frame = check_frame(data, "downsample")
    most = check_points(points)
    if not len(frame):
        return frame.copy()
    xs = positions(frame, x_key if x_key == "step" else check_axis([frame], x_key))
    names = metrics_of(frame)
    runs = [rows for _, rows in runs_of(frame)]
    stays = np.zeros(len(frame), dtype=bool)
    thinned = frame.copy()
    for name in names:
        values = frame[name].to_numpy(dtype=np.float64)
        kept = np.concatenate([_kept_rows(values, xs, rows, most) for rows in runs])
        stays[kept] = True
        column = np.full(len(frame), np.nan)
        column[kept] = values[kept]
        thinned[name] = column
    return thinned[stays]


def check_points(points: object) -> int:
    """How many points stay.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is fewer than 5.
    """
    try:
        number = operator.index(points)  # type: ignore[arg-type] # whatever it is, this finds out
    except TypeError as error:
        raise TypeError(
            f"The number of points to keep must be a whole number, got {points!r} "
            f"({type(points).__name__})."
        ) from error
    if number < FEWEST:
        raise ValueError(f"The number of points to keep must be {FEWEST} or more, got {number}.")
    return number


def keep(x: Floats | None, y: Floats, points: int) -> Indices:
    """Which points of a curve stay, in order.

    Args:
        x: Where they are; None to count them.
        y: Their values. NaN and infinities are points that a reader wants to see: the first of
            them in a bucket stays.
        points: How many stay at most, 5 or more.

    Returns:
        Their indices.

    Example:
        >>> keep(None, np.array([1.0, 1, 1, 9, 1, 1, 0, 1, 1]), 6).tolist()
        [0, 3, 4, 6, 8]
    """
    if len(y) <= points:
        return np.arange(len(y))
    finite = np.isfinite(y)
    most = (points - 2) // (2 if finite.all() else 3)
    starts = _bucket_starts(x, len(y), most)
    of_bucket = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(y))))
    low, high = np.where(finite, y, np.inf), np.where(finite, y, -np.inf)
    is_lowest = finite & (low == np.minimum.reduceat(low, starts)[of_bucket])
    is_highest = finite & (high == np.maximum.reduceat(high, starts)[of_bucket])
    chosen = [_first_of_each(which, of_bucket) for which in (is_lowest, is_highest, ~finite)]
    return np.unique(np.concatenate([[0, len(y) - 1], *chosen]).astype(np.intp))


def _bucket_starts(x: Floats | None, count: int, most: int) -> Indices:
    """Where buckets begin: of equal width on an axis that only goes forward, else of equal size."""
    width = 0.0 if x is None else x[-1] / most - x[0] / most
    if x is None or not 0 < width < np.inf or not (np.diff(x) >= 0).all():
        return np.unique(np.linspace(0, count, most, endpoint=False).astype(np.intp))
    buckets = np.minimum((x / width - x[0] / width).astype(np.intp), most - 1)
    return np.concatenate([[0], np.flatnonzero(np.diff(buckets)) + 1])


def _first_of_each(which: NDArray[np.bool_], of_bucket: Indices) -> Indices:
    found = np.flatnonzero(which)
    return found[np.diff(of_bucket[found], prepend=-1) > 0]


def _kept_rows(values: Floats, xs: Floats, rows: Indices, most: int) -> Indices:
    points = rows[~np.isnan(values[rows])]
    return points[keep(xs[points], values[points], most)]
