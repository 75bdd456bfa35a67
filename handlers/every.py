"""Only each n-th event of a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final

from handlers.records import Sink
from telemetry import EventName, HandlerFunction

MAX_NAMES: Final = 4096
"""Event names that are counted. More than this means made-up names."""


def every(sink: Sink, n: int) -> HandlerFunction:
    """Hand on the first event of each name and each ``n``-th after it, whatever thread emits them.

    Example:
        >>> handle = every(lambda event, measurements, *_: print(measurements["loss"]), 3)
        >>> for loss in range(7):
        ...     handle(("training", "step"), {"loss": loss}, {}, None)
        0
        3
        6
    """
    counters: dict[EventName, Iterator[int]] = {}

    def handle(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any
    ) -> None:
        counter = counters.get(event)
        if counter is None:
            if len(counters) >= MAX_NAMES:
                counters.clear()
            # One thread's counter wins if two meet a name at the same time.
            counter = counters.setdefault(event, count())
        if next(counter) % n == 0:
            sink(event, measurements, metadata, config)

    return handle
