"""The time of an event, wherever it is being delivered."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final

EVENT_TIME: Final[ContextVar[int | None]] = ContextVar("trainbus_event_time", default=None)
"""Set by a worker while it delivers an event that was emitted earlier."""


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
