"""Only on rank 0 of a distributed run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from telemetry import EventName, HandlerFunction
from telemetry.ranks import rank

INTERVAL: Final = 0.01
EVENTS: Final = 8
"""So many seconds and events pass between two questions for the rank, which costs two events."""


class OffRank:
    """Stands in for a sink on a rank where it is not built.

    It is attached all the same, so that ``enabled()`` says the same on every rank: an emitter that
    reduces a value across ranks only if somebody listens would wait for the others for ever.

    Args:
        name: The handler's.
        process_rank: This process's rank.
    """

    delivery = "direct"

    def __init__(self, name: str, process_rank: int) -> None:
        self._name = name
        self._rank = process_rank

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Drop the event."""

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(
            f"Handler {self._name!r} has no {attribute!r} here: it is not built on rank "
            f"{self._rank}, only on rank 0. "
            f"To build it on all ranks: handlers.attach({self._name!r}, ranks='all', ...)."
        )


def rank_zero(sink: HandlerFunction) -> HandlerFunction:
    """Hand on the events for as long as nothing tells that this process is another rank than 0.

    For a handler attached before the process group was initialised.
    """
    known: int | None = None
    left = 1
    find = rank

    def ask() -> None:
        nonlocal known, left, find
        if known is None:
            known, find = find(), _asked.rank
        left = EVENTS

    def handle(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any
    ) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            ask()
        if not known:
            sink(event, measurements, metadata, config)

    return handle


class _Asked:
    """The rank, not asked for more often than is worth it, however many handlers want to know."""

    def __init__(self) -> None:
        self._due = 0.0

    def rank(self) -> int | None:
        """None also if that was the answer a moment ago."""
        now = time.monotonic()
        if now < self._due:
            return None
        known = rank()
        if known is None:
            self._due = now + INTERVAL
        return known


_asked = _Asked()
