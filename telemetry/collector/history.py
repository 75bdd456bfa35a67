"""The metrics that a collector has taken in, the last so many of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, overload

from telemetry.collector.keepable import HOST, keepable, read_all
from telemetry.collector.unread import Unread
from telemetry.fork import renew_in_child
from telemetry.records import EventName

_Record: TypeAlias = Any
"""When, in nanoseconds since 1970, then an event, its place and its metrics. Of an operation: when,
by the monotonic clock, its metadata, when it began, and what is to be added to that clock."""
OPERATION_STOP: Final = "performance.operation.stop"


class MetricsHistory(Sequence[dict[str, Any]]):
    """The last records of a collector, oldest first; the older ones make room.

    A record is a new dictionary::

        {"timestamp": 1763720000.25, "event": "training.step", "step": 100,
         "metrics": {"loss": 0.5, "lr": 0.0001}}

    ``timestamp`` is in seconds since 1970, ``step`` is None where there is none, ``metrics`` are
    plain numbers. A timed operation has its duration under the name that it is reported as, such
    as ``forward_backward_duration_ms``. Of an array of more than 16 numbers, only the type and the
    shape are kept, and of what is no number, the type.

    What is on a device is not read when it is collected. A thread that lives for a moment reads it,
    64 records at a time, so that no memory of a device is held for long; reading a record earlier
    waits for the device.

    Args:
        size: How many records are kept.

    Attributes:
        size: How many records are kept.
        keep: Keeps one, after `count_one` has counted it. An operation calls the two by itself,
            because one more call would cost it too much.
        count_one: Counts one.
        epoch: To be added to the monotonic clock, which an operation has read already, for the
            time since 1970; as of the last `add`, because it changes while a computer sleeps.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: deque[_Record] = deque(maxlen=size)
        self.keep: Callable[[_Record], object] = self._kept.append
        self._numbers = itertools.count()
        self.count_one: Callable[[], object] = self._numbers.__next__
        self._looks = 0
        self._looking = threading.Lock()
        self._unread = Unread(size)
        self.epoch = time.time_ns() - time.monotonic_ns()
        renew_in_child(self)

    def add(
        self, event: EventName, place: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Keep a record, of mappings that nobody writes to afterwards.

        Returns:
            The two as they are kept: plain, or with values on a device until they are read.
        """
        place, metrics = self._held(place), self._held(metrics)
        self.count_one()
        now = time.time_ns()
        self.epoch = now - time.monotonic_ns()
        self.keep((now, event, place, metrics))
        return place, metrics

    def end(self) -> None:
        """Take in no more records."""
        self.keep = self.count_one = _nothing

    def clear(self) -> None:
        """Forget all records."""
        self._kept.clear()
        self._unread.clear()

    @property
    def total(self) -> int:
        """How many records were ever added."""
        with self._looking:
            # A look counts as well, and is taken off: so that counting needs no lock.
            self._looks += 1
            return next(self._numbers) + 1 - self._looks

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return self._shown(self._records()[index])
        return self._shown([self._kept[index]])[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._shown(self._records()))

    def __reversed__(self) -> Iterator[dict[str, Any]]:
        return iter(self._shown(self._records())[::-1])

    def __repr__(self) -> str:
        return f"<MetricsHistory of {len(self)} records, at most {self.size}>"

    def _records(self) -> list[_Record]:
        while True:
            try:
                return list(self._kept)
            except RuntimeError:  # another thread has added one meanwhile
                continue

    def _shown(self, records: Sequence[_Record]) -> list[dict[str, Any]]:
        read = read_all([part for record in records for part in _parts(record)])
        return [
            {
                "timestamp": (record[0] + record[3] if _is_operation(record) else record[0]) / 1e9,
                "event": OPERATION_STOP if _is_operation(record) else ".".join(record[1]),
                "step": place.get("step"),
                "metrics": metrics,
            }
            for record, place, metrics in zip(records, read[::2], read[1::2], strict=True)
        ]

    def _held(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if HOST.issuperset(map(type, values.values())):
            return values
        held, waits = keepable(values)
        if waits:
            self._unread.add(held)
        return held

    def _renew(self) -> None:
        self._looking = threading.Lock()


def _parts(record: _Record) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The place of a record, and its metrics."""
    if _is_operation(record):
        now, metadata, started, _ = record
        return {}, {f"{metadata['operation']}_duration_ms": (now - started) / 1e6}
    return record[2], record[3]


def _is_operation(record: _Record) -> bool:
    return isinstance(record[1], Mapping)


def _nothing(*_: object) -> None:
    """Stands in for what is done with a record after the end."""
