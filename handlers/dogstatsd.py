"""Statements as lines of the DogStatsD protocol, written by Datadog's own client."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

from handlers.datadog_statements import STATUS_CODES, Check, Notice, Point, Statement
from handlers.dogstatsd_text import number
from handlers.forks import renew_in_children
from telemetry.extras import import_extra

LATE_NS: Final = 10 * 10**9
"""The Agent puts a value into the ten seconds in which it comes, unless that says its own time."""
MAX_SERIES: Final = 4096
"""Of which the line around the value is remembered."""
SHORTEST: Final = 20
"""Characters that are left of a text before tags are left out for it."""

_SAMPLED: Final = frozenset({"count", "histogram", "distribution", "timing"})


class DogStatsdLines:
    """Writes statements as lines.

    Datadog's client does the writing. What it lacks is done here and by who calls it: it passes on
    any name, any value and events of any length.

    Args:
        feature: What needs the client, for the error if it is not installed.
        size: How many bytes a line has at most.

    References:
        https://docs.datadoghq.com/extend/dogstatsd/datagram_shell
    """

    def __init__(self, feature: str, size: int) -> None:
        self._vendor = import_extra("datadog.dogstatsd", extra="datadog", feature=feature)
        self._size = size
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Use a client of our own: another thread may have held the locks of the parent's."""
        self._caught = _Caught()
        self._client: Any = None
        self._around: dict[tuple[str, str, tuple[str, ...]], tuple[bytes, bytes]] = {}

    def lines(self, statement: Statement) -> tuple[list[bytes], int]:
        """The lines of a statement, none if sampling leaves it out; how many are too long."""
        if isinstance(statement, Point):
            line = self._line(statement)
            return ([line], 0) if 0 < len(line) <= self._size else ([], int(bool(line)))
        if isinstance(statement, Notice):
            return self._fitting(self._event, statement, statement.text)
        return self._fitting(self._check, statement, statement.message)

    def _line(self, point: Point) -> bytes:
        """The line of a point, empty if sampling leaves it out."""
        late = time.time_ns() - point.time_ns > LATE_NS
        if point.rate < 1 or point.kind == "set" or (late and point.kind == "gauge"):
            self._write_point(point, late=late)
            return self._caught.take()
        # The lines of a series differ in the value only: the client writes the first.
        series = (point.kind, point.name, point.tags)
        value = str(number(float(point.value))).encode()
        around = self._around.get(series)
        if around is not None:
            return value.join(around)
        self._write_point(point, late=late)
        line = self._caught.take()
        before, found, after = line.partition(b":%s|" % value)
        if found:
            if len(self._around) >= MAX_SERIES:
                self._around.clear()
            self._around[series] = (before + b":", b"|" + after)
        return line

    def _write_point(self, point: Point, *, late: bool) -> None:
        client = self._opened()
        name, kind, tags = point.name, point.kind, list(point.tags)
        if kind == "set":
            if _taken(point.rate):
                client.set(name, point.value, tags)
            return
        value = number(float(point.value))
        if kind == "gauge" and _taken(point.rate):
            if late:
                client.gauge_with_timestamp(name, value, point.time_ns // 10**9, tags)
            else:
                client.gauge(name, value, tags)
        elif kind in _SAMPLED:
            getattr(client, "increment" if kind == "count" else kind)(
                name, value, tags, sample_rate=point.rate
            )

    def _event(self, notice: Notice, text: str, tags: list[str]) -> None:
        self._opened().event(
            notice.title,
            text,
            alert_type=notice.alert_type,
            aggregation_key=notice.aggregation_key or None,
            date_happened=notice.time_ns // 10**9,
            tags=tags,
        )

    def _check(self, check: Check, message: str, tags: list[str]) -> None:
        self._opened().service_check(
            check.name,
            STATUS_CODES[check.status],
            tags=tags,
            timestamp=check.time_ns // 10**9,
            # Not every agent looks for the message before it splits the line at each bar.
            message=message.replace("|", "/"),
        )

    def _fitting(
        self, write: Callable[[Any, str, list[str]], None], what: Any, text: str
    ) -> tuple[list[bytes], int]:
        """The line, with the text and then the tags cut until it is short enough."""
        tags = list(what.tags)
        while True:
            write(what, text, tags)
            line = self._caught.take()
            if len(line) <= self._size:
                return [line], 0
            if len(text) > SHORTEST:
                text = text[: len(text) * 3 // 4].rstrip("…") + "…"
            elif tags:
                tags = tags[: len(tags) // 2]
            else:
                return [], 1

    def _opened(self) -> Any:
        if self._client is None:
            self._client = self._vendor.DogStatsd(
                host="127.0.0.1", port=8125, disable_telemetry=True, disable_buffering=True
            )
            # It has put tags of the environment here; ours have them already.
            self._client.constant_tags = []
            self._client.socket = self._caught
        return self._client


class _Caught:
    """Stands where the client has its socket, and keeps the line that it would send."""

    family = None

    def __init__(self) -> None:
        self._line = b""

    def getsockopt(self, *_: int) -> None:
        """No kind of socket in particular."""

    def send(self, line: bytes) -> int:
        self._line = line.rstrip(b"\n")
        return len(line)

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        line, self._line = self._line, b""
        return line


def _taken(rate: float) -> bool:
    return rate >= 1 or random.random() < rate
