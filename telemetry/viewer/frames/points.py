"""The points in a frame: a metric of a run, without the rows that have no value of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from telemetry.extras import import_extra

if TYPE_CHECKING:
    from pandas import DataFrame

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]

RECORD: Final = "record"
"""The column with the numbers of records that say nothing else of where they are."""
AXES: Final = ("step", "epoch", RECORD)
"""Numbers of a record that say where a point is, and are no metrics."""


def check_frame(data: object, where: str) -> DataFrame:
    """The frame, or an error that says what was given instead.

    Raises:
        TypeError: It is no pandas DataFrame.
    """
    pandas = import_extra("pandas", extra="viewer", feature=where)
    if isinstance(data, pandas.DataFrame):
        return cast("DataFrame", data)
    raise TypeError(
        f"{where} takes the DataFrame that read_jsonl gives, got {type(data).__name__}."
    )


def metrics_of(frame: DataFrame) -> list[str]:
    """The metric columns: those that `read_jsonl` noted, and numbers that were added behind them.

    A frame of which nothing is noted has its metrics in all columns of numbers.

    Example:
        >>> import pandas
        >>> metrics_of(pandas.DataFrame({"run": ["a"], "step": [1.0], "val.loss": [0.5]}))
        ['val.loss']
    """
    noted = [name for name in frame.attrs.get("metrics", ()) if name in frame.columns]
    if "metrics" in frame.attrs and not noted:
        return []
    columns = [str(name) for name in frame.columns]
    added = columns[columns.index(noted[-1]) + 1 :] if noted else columns
    numbers = [name for name in added if frame[name].dtype.kind in "iuf" and name not in AXES]
    return [*noted, *numbers]


def runs_of(frame: DataFrame) -> Iterator[tuple[str, Indices]]:
    """Each run with the positions of its rows, in the order in which the runs come.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"run": ["b", "a", "b"]})
        >>> [(run, rows.tolist()) for run, rows in runs_of(frame)]
        [('b', [0, 2]), ('a', [1])]
    """
    if not len(frame):
        return
    if "run" not in frame.columns:
        yield "", np.arange(len(frame))
        return
    codes, names = frame["run"].factorize(use_na_sentinel=False)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    for name, rows in zip(names, np.split(order, ends[:-1]), strict=True):
        yield str(name), rows


def change_points(data: object, where: str, change: Callable[[Floats], Floats]) -> DataFrame:
    """A copy of a frame in which the points of each metric of each run are others.

    Args:
        data: What `read_jsonl` gives.
        where: For whom, as an error names it.
        change: Gets the values of one metric of one run in order, without NaN, and gives as many.

    Raises:
        TypeError: The data is no frame.
    """
    frame = check_frame(data, where)
    changed = frame.copy()
    runs = [rows for _, rows in runs_of(frame)]
    for name in metrics_of(frame):
        values = frame[name].to_numpy(dtype=np.float64, copy=True)
        for rows in runs:
            points = rows[~np.isnan(values[rows])]
            values[points] = change(values[points])
        changed[name] = values
    return changed
