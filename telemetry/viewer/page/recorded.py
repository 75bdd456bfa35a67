"""The points of metrics as they were recorded, kept between two questions."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry.viewer.frames.points import Floats
from telemetry.viewer.frames.shapes import Numbers
from telemetry.viewer.logs.columns import Column
from telemetry.viewer.page.watched import Snapshot

MOST_POINTS: Final = 5_000_000
"""Points that are kept; what was not asked for longest is read again when it is."""

Integers = NDArray[np.int64]


class Derived(NamedTuple):
    """What is made of records as if it were a metric of theirs.

    Attributes:
        name: What it is called; no metric is called so.
        condition: Which records have it, in SQL.
        value: What it is in these, in SQL.
    """

    name: str
    condition: str
    value: str


class Points(NamedTuple):
    """The points of a metric in all runs, in the order in which they were recorded.

    Attributes:
        run: The number of each point's run.
        row: Its ``rowid``.
        step: NaN where there is none, as in the next two.
        epoch: Likewise.
        second: Since 1970.
        value: What was measured.
    """

    run: Integers
    row: Integers
    step: Floats
    epoch: Floats
    second: Floats
    value: Floats

    def where(self, which: Any) -> Points:
        """Some of them."""
        return Points(*(each[which] for each in self))

    def then(self, later: Points) -> Points:
        """These, and later ones."""
        if not len(later.row):
            return self
        pairs: Any = zip(self, later, strict=True)
        return Points(*(np.concatenate(pair) for pair in pairs))


class Recorded:
    """Reads the points of metrics, and later only what has come since.

    Args:
        most: How many points are kept.
    """

    def __init__(self, most: int = MOST_POINTS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._generation = -1
        self._kept: OrderedDict[str, tuple[Column | Derived, Points]] = OrderedDict()

    def points(
        self, snapshot: Snapshot, names: Iterable[str], derived: Iterable[Derived] = ()
    ) -> dict[str, Points]:
        """The points of some metrics.

        Args:
            snapshot: What was read of the logs.
            names: The metrics; those that are not there are left out.
            derived: What else is wanted.
        """
        there = (snapshot.columns[name] for name in names if name in snapshot.columns)
        columns: list[Column | Derived] = [*there, *derived]
        with self._lock:
            if self._generation != snapshot.generation:
                self._kept.clear()
                self._generation = snapshot.generation
            for group, after in _groups(columns, self._kept):
                for column, new in zip(group, _read(snapshot, group, after), strict=True):
                    self._keep(column, new)
            found = {column.name: self._kept[column.name][1] for column in columns}
            for name in found:
                self._kept.move_to_end(name)
            self._forget()
        return found

    def _keep(self, column: Column | Derived, new: Points) -> None:
        kept = self._kept.get(column.name)
        if kept is not None and kept[0] == column:
            new = kept[1].then(new)
        self._kept[column.name] = (column, new)

    def _forget(self) -> None:
        count = sum(len(points.row) for _, points in self._kept.values())
        while count > self._most and len(self._kept) > 1:
            _, (_, oldest) = self._kept.popitem(last=False)
            count -= len(oldest.row)


def _groups(
    columns: Iterable[Column | Derived], kept: Mapping[str, tuple[Column | Derived, Points]]
) -> list[tuple[list[Column | Derived], int]]:
    """Metrics that are read together, because the same records have them, and after which row."""
    groups: dict[tuple[str, int], list[Column | Derived]] = defaultdict(list)
    for column in columns:
        before = kept.get(column.name)
        is_known = before is not None and before[0] == column and len(before[1].row)
        after = int(before[1].row[-1]) if before is not None and is_known else -1
        groups[column.condition, after].append(column)
    return [(group, after) for (_, after), group in groups.items()]


def _read(snapshot: Snapshot, columns: Sequence[Column | Derived], after: int) -> list[Points]:
    """The points of metrics that the same records have."""
    numbers = Numbers([column for column in columns if isinstance(column, Column)])
    values = ", ".join(
        f"{numbers.within(each) if isinstance(each, Column) else each.value} AS v{n}"
        for n, each in enumerate(columns)
    )
    parsed = ", ".join(["*", *numbers.parsed()])
    cursor = snapshot.records.connection.cursor()
    found = cursor.execute(
        "SELECT list_position($runs, run) - 1 AS run, rowid, step, epoch, "
        f"epoch_us(timestamp) / 1e6 AS second, {values} FROM (SELECT {parsed} FROM current "
        f"WHERE rowid > $after AND rowid <= $last AND ({columns[0].condition}))",
        {"runs": list(snapshot.runs), "after": after, "last": snapshot.last},
    ).fetchnumpy()
    rows = np.asarray(found["rowid"], dtype=np.int64)
    order: Any = slice(None) if (np.diff(rows) > 0).all() else np.argsort(rows)
    run = np.ma.filled(np.ma.asarray(found["run"]), -1).astype(np.int64)
    step, epoch, second = (_filled(found[name])[order] for name in ("step", "epoch", "second"))
    points = []
    for number in range(len(columns)):
        value: Any = found[f"v{number}"]
        present = (~np.ma.getmaskarray(value) & (run >= 0))[order]
        each = Points(run[order], rows[order], step, epoch, second, _filled(value)[order])
        points.append(each if present.all() else each.where(present))
    return points


def _filled(values: Any) -> Floats:
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
