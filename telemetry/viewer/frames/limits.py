"""Outliers clamped to percentiles, so that a curve and not its spikes sets the scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from telemetry.viewer.frames.points import Floats, change_points
from telemetry.viewer.frames.smoothing import as_curve

if TYPE_CHECKING:
    from pandas import DataFrame

Percentiles: TypeAlias = float | tuple[float | None, float | None]


_HUGE: Final = 1e300


class Limits(NamedTuple):
    """Between which percentiles values stay as they are.

    Attributes:
        lower: In percent, None for no limit on this side.
        upper: Likewise.
    """

    lower: float | None
    upper: float | None


@overload
def clip(data: DataFrame, percentile: Percentiles) -> DataFrame: ...
@overload
def clip(data: ArrayLike, percentile: Percentiles) -> Floats: ...
def clip(data: Any, percentile: Percentiles) -> Any:
    """Clamp what is beyond a percentile of a curve, or of each metric of each run in a frame.

    Nothing is dropped: a spike becomes as high as the percentile. Percentiles are those of the
    finite values, linearly interpolated; an infinity is clamped like any value, NaN stays.

    Args:
        data: The frame that `read_jsonl` gives, or an array of one dimension.
        percentile: One number is the upper limit, and the lowest values stay as they are: 99 clamps
            the highest 1 %. Two numbers are the lower and the upper limit; None is no limit.

    Returns:
        A frame or a float64 array of the same shape; what was given is left as it is.

    Raises:
        TypeError: A percentile is no number, there are neither one nor two of them, or the data is
            neither a frame nor an array of numbers of one dimension.
        ValueError: One is outside 0 to 100, or the lower is not below the upper.

    Example:
        >>> clip([1.0, 2.0, 3.0, 4.0, 100.0], 75).tolist()
        [1.0, 2.0, 3.0, 4.0, 4.0]
        >>> clip([1.0, 2.0, 3.0, 4.0, 100.0], (25, None)).tolist()
        [2.0, 2.0, 3.0, 4.0, 100.0]
    """
    limits = check_percentiles(percentile)
    if hasattr(data, "columns"):
        return change_points(data, "clip", lambda values: clamp(values, limits))
    return clamp(as_curve(data, "clip"), limits)


def check_percentiles(percentile: object) -> Limits:
    """The limits that are meant.

    Raises:
        TypeError: A percentile is no number, or there are neither one nor two of them.
        ValueError: One is outside 0 to 100, or the lower is not below the upper.
    """
    both = tuple(percentile) if isinstance(percentile, Iterable) else (None, percentile)
    if isinstance(percentile, str) or len(both) != 2 or not all(map(_is_limit, both)):  # noqa: PLR2004 -- lower and upper
        raise TypeError(
            "A percentile to clip at must be a number, or a pair of a lower and an upper one of "
            f"which one can be None, got {percentile!r}."
        )
    given = [each for each in both if each is not None]
    if not all(0 <= each <= 100 for each in given):  # noqa: PLR2004 -- percent
        raise ValueError(f"A percentile to clip at must be between 0 and 100, got {percentile!r}.")
    if len(given) == 2 and given[0] >= given[1]:  # noqa: PLR2004 -- lower and upper
        raise ValueError(
            f"The lower percentile to clip at must be below the upper one, got {percentile!r}."
        )
    return Limits(*both)


def clamp(values: Floats, limits: Limits) -> Floats:
    """The values of one curve within their percentiles."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return values.copy()
    scale = 0.25 if np.abs(finite).max() > _HUGE else 1.0  # or a difference would overflow
    finite = finite * scale
    lowest = -math.inf if limits.lower is None else np.percentile(finite, limits.lower) / scale
    highest = math.inf if limits.upper is None else np.percentile(finite, limits.upper) / scale
    return np.clip(values, lowest, highest)


def _is_limit(value: object) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return value is None or (number and not isinstance(value, bool))
