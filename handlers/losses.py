"""Counting what was lost, and saying so without a flood."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from handlers.forks import renew_in_children
from handlers.records import Site, TimedEvent
from telemetry import EventName

OVERFLOW: Final = ("telemetry", "handler", "overflow")
PASSING: Final = frozenset(
    {
        *("drop_oldest", "drop_newest", "block"),
        *("disk_full", "trackio_unwritable"),
        *("no_connection", "redis_unreachable", "retries_exhausted", "not_sent", "not_pushed"),
    }
)
"""The reasons that pass: what was lost would be delivered another time."""
INTERVAL: Final = 1.0
"""Seconds between two announcements."""

logger = logging.getLogger("telemetry")


class Losses:
    """Counts the events a handler lost, for one reason, and announces them.

    Each announcement is the event ``telemetry.handler.overflow`` with the count since the last
    one. It comes at most once a second and at the end. The log gets a warning at the first and at
    the end.

    Args:
        site: Whose losses.
        policy: What the event says about the reason.

    Attributes:
        policy: As given.
        total: How many were lost so far.
        unannounced: How many were lost since the last announcement.
    """

    def __init__(self, site: Site, policy: str) -> None:
        self._site = site
        self.policy = policy
        self.after_fork()
        site.lost.append(self)
        renew_in_children(self)

    def after_fork(self) -> None:
        """Start from zero: the parent announces its own."""
        self._lock = threading.RLock()
        self.unannounced = 0
        self.total = 0
        self._logged = 0
        self._due = 0.0

    def add(self, count: int, because: object = "") -> None:
        """Count events that were lost, and announce them if it is time to."""
        if count:
            self.note(count, because)
            self.announce_if_due()

    def note(self, count: int, because: object = "") -> None:
        """Count events that were lost, and leave it to others to announce them.

        For who holds a lock, for which those may wait that hear of it.
        """
        if count == 0:
            return
        with self._lock:
            self.unannounced += count
            self.total += count
            first = self._logged == 0
            if first:  # or two threads would say so
                self._logged = self.total
        if first:
            self._log(because)

    def announce_if_due(self) -> None:
        """Announce what was not announced yet, unless that happened less than a second ago."""
        if self.unannounced and time.monotonic() >= self._due:
            self._announce()

    def announce_rest(self) -> None:
        """Announce what was not announced yet, and log the total."""
        if self.unannounced:
            self._announce()
        if self.total > self._logged:
            self._log()

    def _announce(self) -> None:
        with self._lock:
            count, self.unannounced = self.unannounced, 0
            self._due = time.monotonic() + INTERVAL
        if count:
            metadata = {"handler_id": self._site.handler_id, "policy": self.policy}
            self._site.registry.execute(OVERFLOW, {"dropped": count}, metadata)

    def _log(self, because: object = "") -> None:
        self._logged = self.total
        logger.warning(
            "Handler %r, events lost so far: %d (%s)%s",
            self._site.handler_id,
            self.total,
            self.policy,
            f": {because}" if because else "",
        )


def passing(lost: Mapping[str, int]) -> int:
    """How many of the events that a handler has lost it would deliver another time.

    Args:
        lost: How many it has lost, by the reason.

    Example:
        >>> passing({"disk_full": 2, "refused": 3})
        2
    """
    return sum(count for policy, count in lost.items() if policy in PASSING)


def is_announcement(event: EventName) -> bool:
    """Whether an event says what some handler lost. Where it is lost itself, it is not counted.

    Or handlers that lose everything would keep each other going: what one announces is what the
    next one loses.

    Example:
        >>> is_announcement(("telemetry", "handler", "overflow"))
        True
    """
    return event == OVERFLOW


def countable(events: Iterable[TimedEvent]) -> int:
    """How many of some events count when they are lost: all but announcements of losses."""
    return sum(not is_announcement(entry.event) for entry in events)
