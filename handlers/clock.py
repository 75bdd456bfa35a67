"""The time of an event, wherever it is being delivered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

EVENT_TIME: Final[ContextVar[int | None]] = ContextVar("trainbus_event_time", default=None)
"""Set while an event that was emitted earlier is delivered, or emitted again."""


def event_time_ns() -> int:
    """When the event that is being delivered was emitted, in nanoseconds since 1970 (UTC).

    A sink asks this instead of ``time.time_ns()``, which would give the time of delivery where
    a worker delivers.

    Example:
        >>> before = time.time_ns()
        >>> before <= event_time_ns()
        True
    """
    time_ns = EVENT_TIME.get()
    return time.time_ns() if time_ns is None else time_ns


@contextmanager
def at_time(time_ns: int) -> Iterator[None]:
    """Emit again what was emitted before, with the time that it had.

    Handlers with a worker see that time, so attach with ``background=True`` what is to be given it.

    Args:
        time_ns: Nanoseconds since 1970 (UTC).

    Example:
        >>> with at_time(1795257000123456789):
        ...     event_time_ns()
        1795257000123456789
    """
    token = EVENT_TIME.set(time_ns)
    try:
        yield
    finally:
        EVENT_TIME.reset(token)
