"""What was dropped because too much waited, and its announcement."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

from telemetry.registry import Registry

INTERVAL: Final = 1.0
"""Seconds between two announcements of what was lost."""
OVERFLOW: Final = ("telemetry", "handler", "overflow")
POLICY: Final = "drop_oldest"


class Losses:
    """Counts what was dropped, and announces it as ``telemetry.handler.overflow``.

    Args:
        registry: The bus.
        handler_id: Whose.
    """

    def __init__(self, registry: Registry, handler_id: Hashable) -> None:
        self._registry = registry
        self._handler_id = handler_id
        self.renew()

    def renew(self) -> None:
        """Start from zero, in a forked child."""
        self._lock = threading.Lock()
        self._dropped = 0
        self._next_announcement = 0.0

    def add(self, dropped: int) -> None:
        """Count what was dropped; `announce` says it."""
        with self._lock:
            self._dropped += dropped

    def announce(self, *, at_once: bool = False) -> None:
        """Say what was dropped, at most once a second. Not to be called with a lock held."""
        if not self._dropped or not (at_once or time.monotonic() >= self._next_announcement):
            return
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            self._next_announcement = time.monotonic() + INTERVAL
        if dropped:
            metadata = {"handler_id": self._handler_id, "policy": POLICY}
            self._registry.execute(OVERFLOW, {"dropped": dropped}, metadata)
