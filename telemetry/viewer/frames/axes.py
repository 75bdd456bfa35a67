"""Where points are on the horizontal axis."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from telemetry.viewer.frames.epochs import steps_of
from telemetry.viewer.frames.points import RECORD, Floats, metrics_of, runs_of
from telemetry.viewer.frames.selection import match_metrics

if TYPE_CHECKING:
    from pandas import DataFrame

TIME: Final = "time"
"""The axis of the time since each run's first record."""

USUAL: Final = ("step", "epoch", TIME, RECORD)
MOST_TOLD: Final = 4
"""Metrics of one name in an error."""

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


class Unit(NamedTuple):
    """A unit of time.

    Attributes:
        name: In the plural.
        seconds: How long it is.
    """

    name: str
    seconds: float


def positions(frame: DataFrame, x_key: str) -> Floats:
    """Where each row is on an axis; NaN where it says nothing of it.

    Args:
        frame: What `read_jsonl` gives.
        x_key: ``"step"``, counted on where it begins anew in each epoch; ``"time"``, seconds since
            the run's first record; or any column of numbers.

    Raises:
        ValueError: There is no such axis.
    """
    if x_key == "step":
        return steps_of(frame)
    if x_key == TIME:
        return _seconds(frame)
    if x_key not in frame.columns or not _is_number(frame[x_key]):
        return np.full(len(frame), np.nan)
    return frame[x_key].to_numpy(dtype=np.float64, na_value=np.nan)


def axes_of(frames: Sequence[DataFrame]) -> list[str]:
    """The axes on which some row of some frame has a place: the usual ones first.

    Example:
        >>> import pandas
        >>> axes_of([pandas.DataFrame({"run": ["a"], "step": [1.0], "tokens": [512]})])
        ['step', 'tokens']
    """
    columns = [str(name) for frame in frames for name in frame.columns if _is_number(frame[name])]
    found = dict.fromkeys([*USUAL, *columns])
    return [name for name in found if any(_has_place(frame, name) for frame in frames)]


def check_axis(frames: Sequence[DataFrame], x_key: object, others: Sequence[str] = ()) -> str:
    """The axis, if any row has a place on it.

    Args:
        frames: What `read_jsonl` gave.
        x_key: Its name; a metric can be named as everywhere, such as ``train.lr``.
        others: Metrics that were not read, and can be meant as well.

    Raises:
        TypeError: It is no string.
        ValueError: There is none of this name, those that there are are told; or several metrics
            are meant by it.
    """
    if not isinstance(x_key, str):
        raise TypeError(
            f"x_key must be the name of a column, got {x_key!r} ({type(x_key).__name__})."
        )
    metrics = list(dict.fromkeys(name for frame in frames for name in metrics_of(frame)))
    meant = _metrics_meant(x_key, [*others, *metrics])
    for axis in [x_key, *meant] if len(meant) == 1 else [x_key]:
        if any(_has_place(frame, axis) for frame in frames):
            return axis
    if len(meant) > 1:
        more = f" and {len(meant) - MOST_TOLD} more" if len(meant) > MOST_TOLD else ""
        raise ValueError(
            f"The axis {x_key!r} could be {', '.join(meant[:MOST_TOLD])}{more}. Name one of them."
        )
    there = axes_of(frames)
    near = difflib.get_close_matches(x_key, [*there, *others], n=1)
    shown = [name for name in there if name not in metrics or name in near]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"The axis {x_key!r} {_why_none(frames, x_key)}. Axes: {', '.join(shown) or 'none'}, or a "
        f"metric.{hint}"
    )


def _why_none(frames: Sequence[DataFrame], x_key: str) -> str:
    if any(x_key in frame.columns and not _is_number(frame[x_key]) for frame in frames):
        return "has no numbers"
    if x_key == RECORD:
        return "is only there where no record has a step, an epoch or a time"
    return "is on no record"


def metric_called(x_key: str, metrics: Sequence[str]) -> list[str]:
    """The metric that the name of an axis means, if it is one and not several.

    Example:
        >>> metric_called("train.lr", ["training.lr"]), metric_called("val", ["val.a", "val.b"])
        (['training.lr'], [])
    """
    meant = _metrics_meant(x_key, metrics)
    return meant if len(meant) == 1 else []


def _metrics_meant(x_key: str, metrics: Sequence[str]) -> list[str]:
    try:
        return match_metrics(x_key, metrics)
    except ValueError:
        return []


def usual_axis(frames: Sequence[DataFrame]) -> str:
    """The step if any value of a metric has one, else the epoch, the time, the record's number.

    Example:
        >>> import pandas
        >>> usual_axis([pandas.DataFrame({"epoch": [1.0], "loss": [0.5]})])
        'epoch'
    """
    rows = [frame.loc[frame[metrics_of(frame)].notna().any(axis=1)] for frame in frames]
    return next((name for name in USUAL if any(_has_place(f, name) for f in rows)), USUAL[0])


def unit_of(seconds: float) -> Unit:
    """The unit in which so long a time is read best.

    Example:
        >>> unit_of(90.0).name, unit_of(1800.0).name, unit_of(20000.0).name, unit_of(1e6).name
        ('seconds', 'minutes', 'hours', 'days')
    """
    if seconds < 3 * _MINUTE:
        return Unit("seconds", 1.0)
    if seconds < 3 * _HOUR:
        return Unit("minutes", _MINUTE)
    return Unit("hours", _HOUR) if seconds < 3 * _DAY else Unit("days", _DAY)


def _seconds(frame: DataFrame) -> Floats:
    seconds = np.full(len(frame), np.nan)
    if "timestamp" not in frame.columns or frame["timestamp"].isna().all():
        return seconds
    stamps = frame["timestamp"].to_numpy(dtype="datetime64[us]")
    origins = frame.attrs.get("origins", {})
    for run, rows in runs_of(frame):
        known = stamps[rows]
        if not np.isnat(known).all():
            began = origins.get(run, {}).get("began")  # of all records, of which these may be some
            first = known[~np.isnat(known)].min() if began is None else np.datetime64(began, "us")
            seconds[rows] = (known - first) / np.timedelta64(1, "s")
    return seconds


def _has_place(frame: DataFrame, x_key: str) -> bool:
    if x_key == TIME:
        return "timestamp" in frame.columns and bool(frame["timestamp"].notna().any())
    if x_key not in frame.columns or not _is_number(frame[x_key]):
        return False
    return bool(frame[x_key].notna().any())


def _is_number(column: Any) -> bool:
    return column.dtype.kind in "iuf"
