"""Values on a device that are to be read when nobody waits for them."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from typing import Any, Final

from telemetry.collector.keepable import read_all
from telemetry.fork import renew_in_child

BATCH: Final = 64
EXIT_TIMEOUT: Final = 1.0
"""Seconds for which the end of the program waits: a thread must not be cut off in a framework."""


class Unread:
    """Mappings with values on a device, which are replaced by numbers a batch at a time.

    Args:
        size: How many may wait; of more, the oldest stay as they are.
    """

    def __init__(self, size: int) -> None:
        self._waiting: deque[dict[str, Any]] = deque(maxlen=size)
        self._reader: threading.Thread | None = None
        self._starting = threading.Lock()
        renew_in_child(self)

    def add(self, values: dict[str, Any]) -> None:
        """Read these, by and by; they are written to."""
        self._waiting.append(values)
        if len(self._waiting) >= BATCH:
            self._start()

    def clear(self) -> None:
        """Read none of what waits."""
        self._waiting.clear()

    def _start(self) -> None:
        with self._starting:
            if self._reader is not None and self._reader.is_alive():
                return
            # A thread for each batch, not one that waits for the next: none is there to be stopped.
            reader = threading.Thread(target=self._read, name="trainbus-history", daemon=True)
            try:
                reader.start()
            except Exception:
                return  # no thread is to be had: what waits is read when somebody asks for it
            self._reader = reader
            _readers.add(reader)

    def _read(self) -> None:
        while self._waiting:
            batch: list[dict[str, Any]] = []
            while self._waiting and len(batch) < BATCH:
                batch.append(self._waiting.popleft())
            for values, numbers in zip(batch, read_all(batch), strict=True):
                values.update(numbers)

    def _renew(self) -> None:
        # What waits is the parent's, and a device cannot be used in a forked child.
        self._waiting.clear()
        self._reader = None
        self._starting = threading.Lock()


_readers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _await_readers() -> None:
    for reader in tuple(_readers):
        reader.join(EXIT_TIMEOUT)


atexit.register(_await_readers)
