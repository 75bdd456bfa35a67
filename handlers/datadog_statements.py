"""What is said to Datadog: points of metrics, events and service checks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

PointKind: TypeAlias = Literal["gauge", "count", "histogram", "distribution", "timing", "set"]
AlertType: TypeAlias = Literal["info", "success", "warning", "error"]
Status: TypeAlias = Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]


class Point(NamedTuple):
    """One value of a metric."""

    kind: PointKind
    name: str
    value: float | str
    """A finite number; a word for a set."""
    tags: tuple[str, ...]
    rate: float
    """The probability with which it is to be sent."""
    time_ns: int


class Notice(NamedTuple):
    """One event, in Datadog's sense: a message in its event stream."""

    title: str
    text: str
    alert_type: AlertType
    tags: tuple[str, ...]
    time_ns: int
    aggregation_key: str = ""
    """Events with the same one are shown together."""


class Check(NamedTuple):
    """The status of something."""

    name: str
    status: Status
    message: str
    tags: tuple[str, ...]
    time_ns: int


Statement: TypeAlias = Point | Notice | Check


class Told(NamedTuple):
    """What one event becomes."""

    statements: Sequence[Statement]
    size: int = 1
    """How many events are lost if it is: none if it only announces losses."""


STATUS_CODES: dict[Status, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


class Transport(Protocol):
    """Takes statements, which are fit to be sent, to where they belong.

    What it loses it notes, and leaves the announcement to who calls it without a lock.
    """

    def send(self, events: Sequence[Told]) -> int:
        """Send them; how many statements are too long for it."""

    def kept(self) -> int:
        """How many events of earlier calls wait; asked by any thread, without a lock."""

    def idle(self) -> bool:
        """Send what has waited long enough; whether something waits still."""

    def flush(self) -> None:
        """Send what waits."""

    def close(self) -> None:
        """Send what waits, and close the connection; a late statement opens it again."""


def hostname() -> str:
    """The name of this machine, by which Datadog tells machines apart."""
    return socket.gethostname()
