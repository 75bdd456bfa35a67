"""Moving averages of curves."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import ArrayLike

from telemetry.extras import import_extra
from telemetry.viewer.frames.points import Floats, change_points

if TYPE_CHECKING:
    from pandas import DataFrame

SmoothMode: TypeAlias = Literal["mean", "centered", "ema", "median"]
_HUGE: Final = 1e300
_SMALLER: Final = 2.0**-60
MODES: Final[tuple[str, ...]] = get_args(SmoothMode)


@overload
def moving_average(data: DataFrame, window: int | None, mode: SmoothMode = "mean") -> DataFrame: ...
@overload
def moving_average(data: ArrayLike, window: int | None, mode: SmoothMode = "mean") -> Floats: ...
def moving_average(data: Any, window: int | None, mode: SmoothMode = "mean") -> Any:
    """Smooth a curve, or each metric of each run in a frame by itself.

    The window counts points. In a frame, rows without a value of the metric are no points, and no
    window reaches into another run. NaN and infinities take no part in the average of others and
    stay what they are: one infinite loss does not spoil what comes after it.

    Args:
        data: The frame that `read_jsonl` gives, or an array of one dimension.
        window: How many points are averaged. 0, 1 and None smooth nothing.
        mode: ``"mean"`` of the point and those before it, fewer at the start, as are known while
            training; ``"centered"``, the mean of as many points before as after it (one more before
            it, if the window is even), which does not lag behind; ``"ema"``, the exponentially
            weighted mean with ``alpha = 2 / (window + 1)``, debiased, so that it starts at the
            first value and not near zero; ``"median"`` of the same points as ``"mean"``, which a
            spike does not move.

    Returns:
        A frame or a float64 array of the same shape; what was given is left as it is.

    Raises:
        TypeError: The window is no whole number, or the data is neither a frame nor an array of
            numbers of one dimension.
        ValueError: The window is negative, or the mode is none of these.

    Example:
        >>> moving_average([4.0, 2.0, 6.0], 2).tolist()
        [4.0, 3.0, 4.0]
    """
    width = check_window(window)
    smooth = _MODES[check_mode(mode)]
    if hasattr(data, "columns"):
        return change_points(data, "moving_average", lambda values: _smooth(values, width, smooth))
    values = as_curve(data, "moving_average")
    return _smooth(values, width, smooth)


def check_window(window: object) -> int:
    """How many points a window has, 1 for none.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative.
    """
    if window is None:
        return 1
    try:
        width = operator.index(window)  # type: ignore[arg-type] # whatever it is, this finds out
    except TypeError:
        width = None
    if isinstance(window, bool) or width is None:
        raise TypeError(
            f"The window of smoothing must be a whole number of points, got {window!r} "
            f"({type(window).__name__}). 0 smooths nothing."
        )
    if width < 0:
        raise ValueError(
            f"The window of smoothing must not be negative, got {width}. 0 smooths nothing."
        )
    return max(width, 1)


def check_mode(mode: object) -> str:
    """The mode of smoothing.

    Raises:
        ValueError: There is none of this name.
    """
    if mode not in _MODES:
        raise ValueError(f"The mode of smoothing must be one of {', '.join(MODES)}, got {mode!r}.")
    return str(mode)


def as_curve(data: object, where: str) -> Floats:
    """An array of one dimension, as float64.

    Raises:
        TypeError: It is none.
    """
    try:
        values = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where} takes numbers, got {type(data).__name__}: {error}") from error
    if values.ndim != 1:
        raise TypeError(f"{where} takes an array of one dimension, got shape {values.shape}.")
    return values


def _smooth(values: Floats, width: int, smooth: Callable[[Floats, int], Floats]) -> Floats:
    smoothed = values.copy()
    finite = np.isfinite(values)
    if width > 1 and finite.any():
        points = values[finite]
        scale = _SMALLER if np.abs(points).max() > _HUGE else 1.0  # or sums would overflow
        smoothed[finite] = smooth(points * scale, width) / scale
    return smoothed


def _mean(values: Floats, width: int) -> Floats:
    return _windows(values, width - 1, 0)


def _centered(values: Floats, width: int) -> Floats:
    return _windows(values, width // 2, (width - 1) // 2)


def _windows(values: Floats, before: int, after: int) -> Floats:
    """The mean of each point with so many before and after it, as far as there are any.

    A window is the end of one block and the start of the next, so each sum has only what is in
    the window. The difference of two running sums would be quicker and lose everything small that
    comes after something large: a loss of 1e20 would leave noise behind it.
    """
    before, after = min(before, len(values) - 1), min(after, len(values) - 1)
    width = before + after + 1
    parts = np.zeros(-(-(len(values) + width - 1) // width) * width + width)
    parts[before : before + len(values)] = values / width  # divided first: no sum overflows
    blocks = parts.reshape(-1, width)
    starts = np.cumsum(blocks, axis=1).ravel()
    ends = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    here = np.arange(len(values))
    sums = ends[here] + np.where(here % width, starts[here + width - 1], 0.0)
    counts = np.minimum(here + after, len(values) - 1) - np.maximum(here - before, 0) + 1
    return sums * (width / counts)


def _ema(values: Floats, width: int) -> Floats:
    span = min(width, _HUGE)  # beyond it all weights are equal, and floats end
    return _series(values).ewm(span=span, adjust=True).mean().to_numpy()  # type: ignore[no-any-return] # untyped


def _median(values: Floats, width: int) -> Floats:
    return _series(values).rolling(min(width, len(values)), min_periods=1).median().to_numpy()  # type: ignore[no-any-return] # untyped


def _series(values: Floats) -> Any:
    pandas = import_extra("pandas", extra="viewer", feature="moving_average")
    return pandas.Series(values)


_MODES: Final[dict[str, Callable[[Floats, int], Floats]]] = {
    "mean": _mean,
    "centered": _centered,
    "ema": _ema,
    "median": _median,
}
