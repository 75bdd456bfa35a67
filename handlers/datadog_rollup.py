"""Points in intervals of ten seconds, as Datadog's Agent sums them up."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from handlers.datadog_statements import Point, PointKind

INTERVAL: Final = 10
"""Seconds."""
GRACE: Final = 2
"""Seconds after its end for which an interval waits for points that come late."""
MEMORY: Final = 60
"""Seconds for which an interval that was sent is kept, for points that come later still."""
MAX_VALUES: Final = 1000
"""Values of a histogram in one interval, of which a fair sample is kept if there are more; values
of a distribution in one piece."""
MAX_SUMS: Final = 10_000
"""Series and intervals that are kept at most."""
MAX_SERIES: Final = 1000
"""Series in one request."""
SERIES: Final = "/api/v1/series"
DISTRIBUTIONS: Final = "/api/v1/distribution_points"
_LARGEST: Final = sys.float_info.max


class Series(NamedTuple):
    """What is summed up together."""

    kind: PointKind
    name: str
    tags: tuple[str, ...]


class Sum:
    """The points of one series in one interval."""

    def __init__(self) -> None:
        self.last = 0.0
        self.total = 0.0
        self.count = 0
        self.highest = -math.inf
        self.values: list[float] = []
        self.members: set[str] = set()
        self.unsent = 0
        """How many came since the last time it was sent."""

    def add(self, value: float | str, *, sample: bool) -> None:
        """Add a point; whether a sample of all values is enough."""
        self.unsent += 1
        if isinstance(value, str):
            self.members.add(value)
            return
        self.last = value
        self.total += value
        self.count += 1
        self.highest = max(self.highest, value)
        if not sample or len(self.values) < MAX_VALUES:
            self.values.append(value)
        elif (at := random.randrange(self.count)) < MAX_VALUES:
            self.values[at] = value


class Interval:
    """The sums of ten seconds."""

    def __init__(self) -> None:
        self.sums: dict[Series, Sum] = {}
        self.events = 0
        """How many events had a part in what is unsent."""
        self.used_at = time.monotonic()
        """When it was created or last sent."""

    @property
    def is_unsent(self) -> bool:
        """Whether points came since the last time it was sent."""
        return any(each.unsent for each in self.sums.values())


class Written(NamedTuple):
    """One series as it is sent."""

    form: dict[str, Any]
    points: int
    """How many went into it."""


class Payload(NamedTuple):
    """What is sent in one request."""

    path: str
    series: list[Written]

    @property
    def points(self) -> int:
        """How many went into it."""
        return sum(each.points for each in self.series)

    def halves(self) -> list[Payload]:
        """The same in two requests, none if it is one series."""
        most = (len(self.series) + 1) // 2
        return self.cut(most) if most < len(self.series) else []

    def cut(self, most: int) -> list[Payload]:
        """The same in requests of so many series."""
        series = self.series
        return [Payload(self.path, series[at : at + most]) for at in range(0, len(series), most)]


class Taken(NamedTuple):
    """What was taken out in order to be sent."""

    payloads: list[Payload]
    events: int
    """How many events had a part in it."""


class Rollup:
    """Sums points up. One thread at a time may use it.

    An interval that is sent stays for a while, and is sent again with what comes after: of two
    values for one moment Datadog keeps the later, so that must not be the difference alone. Nothing
    is thinned out: what is summed up costs nothing to send.

    Example:
        >>> rollup = Rollup("host-1")
        >>> for value in (2.0, 3.0):
        ...     rollup.add(Point("count", "steps", value, ("run:a",), 1.0, 1_000_000_000_000))
        >>> rollup.take(None).payloads[0].series[0].form
        {'metric': 'steps', 'points': [[1000, 5.0]], 'type': 'count', 'interval': 10, \
'host': 'host-1', 'tags': ['run:a']}
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._intervals: dict[int, Interval] = {}
        self._pieces: list[Written] = []  # of distributions, which can go at once
        self.latest = 0.0
        """Seconds since 1970 of the latest point."""

    def __bool__(self) -> bool:
        return bool(self._pieces) or any(each.is_unsent for each in self._intervals.values())

    @property
    def events(self) -> int:
        """How many events had a part in what is unsent."""
        return sum(each.events for each in self._intervals.values())

    def is_full(self) -> bool:
        """Whether it has no room, after what was sent is forgotten as far as that is needed."""
        size = sum(len(each.sums) for each in self._intervals.values())
        for start in sorted(self._intervals) if size >= MAX_SUMS else ():
            if size >= MAX_SUMS and not self._intervals[start].is_unsent:
                size -= len(self._intervals.pop(start).sums)
        return size >= MAX_SUMS

    def add(self, point: Point) -> None:
        """Add a point."""
        self.latest = max(self.latest, point.time_ns / 1e9)
        start = _start(point.time_ns)
        series = Series(point.kind, point.name, point.tags)
        sums = self._intervals.setdefault(start, Interval()).sums
        each = sums.setdefault(series, Sum())
        each.add(point.value, sample=point.kind != "distribution")
        if point.kind == "distribution" and len(each.values) == MAX_VALUES:
            self._pieces += self._distribution(start, series, each)
            each.unsent = 0

    def add_event(self, time_ns: int, size: int) -> None:
        """Note that points came from so many events of that time."""
        self._intervals.setdefault(_start(time_ns), Interval()).events += size

    def take(self, now: float | None) -> Taken:
        """What is to be sent: of intervals that have ended at ``now``, or of all for None."""
        intervals = sorted(self._intervals.items())
        due = [
            (start, one)
            for start, one in intervals
            if one.is_unsent and (now is None or start + INTERVAL + GRACE <= now)
        ]
        found = [
            (start, series, each)
            for start, interval in due
            for series, each in interval.sums.items()
            if each.unsent
        ]
        spread = [one for one in found if one[1].kind == "distribution"]
        summed = [one for one in found if one[1].kind != "distribution"]
        payloads = [
            Payload(SERIES, [one for each in summed for one in self._series(*each)]),
            Payload(
                DISTRIBUTIONS,
                self._pieces + [one for each in spread for one in self._distribution(*each)],
            ),
        ]
        self._pieces = []
        for _, _, each in found:
            each.unsent = 0
        events = 0
        for _, interval in intervals:
            if interval.events and not interval.is_unsent:
                events += interval.events
                interval.events = 0
        self._forget(interval for _, interval in due)
        return Taken([one for each in payloads for one in each.cut(MAX_SERIES)], events)

    def _forget(self, sent: Iterable[Interval]) -> None:
        """Forget what was sent long ago, other than these."""
        now = time.monotonic()
        for interval in sent:
            interval.used_at = now
        old = [at for at, one in self._intervals.items() if one.used_at < now - MEMORY]
        for start in old:
            if not self._intervals[start].is_unsent:
                del self._intervals[start]

    def _series(self, start: int, series: Series, each: Sum) -> Iterator[Written]:
        values: dict[tuple[str, str], float]
        if series.kind == "gauge":
            values = {("", "gauge"): each.last}
        elif series.kind == "count":
            values = {("", "count"): each.total}
        elif series.kind == "set":
            values = {("", "gauge"): len(each.members)}
        else:
            ordered = sorted(each.values)
            values = {
                (".count", "count"): each.count,
                (".avg", "gauge"): each.total / each.count,
                (".max", "gauge"): each.highest,
                (".median", "gauge"): percentile(ordered, 0.5),
                (".95percentile", "gauge"): percentile(ordered, 0.95),
                (".99percentile", "gauge"): percentile(ordered, 0.99),
            }
        for (suffix, kind), value in values.items():
            form = {
                "metric": series.name + suffix,
                "points": [[start, min(max(value, -_LARGEST), _LARGEST)]],
                "type": kind,
                "interval": INTERVAL,
                "host": self._host,
                "tags": list(series.tags),
            }
            yield Written(form, each.unsent)

    def _distribution(self, start: int, series: Series, each: Sum) -> Iterator[Written]:
        values, each.values = each.values, []  # they are added to those that were sent before
        form = {
            "metric": series.name,
            "points": [[start, values]],
            "host": self._host,
            "tags": list(series.tags),
        }
        yield Written(form, each.unsent)


def _start(time_ns: int) -> int:
    return time_ns // 10**9 // INTERVAL * INTERVAL


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of all is no larger than.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0], 0.95)
        (2.0, 1.0)
    """
    return ordered[math.ceil(share * len(ordered)) - 1]
