"""Values on a device: judged on a thread of their own, in order, behind a bounded queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

from telemetry.alerts.losses import Losses
from telemetry.log import log_error, logger
from telemetry.registry import Registry

QUEUE_SIZE: Final = 10_000
LINGER: Final = 0.05
"""Seconds that an event waits for company: one wake-up and one device copy for all."""

Entry = TypeVar("Entry")


class Deferred(Generic[Entry]):
    """Hands entries to a function on a worker thread, which is started by the first one.

    When too many wait, the oldest is dropped. What was dropped is announced as
    ``telemetry.handler.overflow``, at most once a second and at the end.

    Args:
        registry: The bus.
        handler_id: Whose.
        work: Called with a batch of entries; it may take as long as it takes.
        size: How many entries may wait.

    Attributes:
        busy: Whether anything waits, or is being worked on: what comes now has to come after it.
    """

    def __init__(
        self,
        registry: Registry,
        handler_id: Hashable,
        work: Callable[[Sequence[Entry]], object],
        size: int = QUEUE_SIZE,
    ) -> None:
        self._handler_id = handler_id
        self._work = work
        self._size = size
        self._losses = Losses(registry, handler_id)
        self.renew()

    def renew(self) -> None:
        """Start empty and without a thread, in a forked child."""
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[Entry] = deque()
        self.busy = False
        self._in_hand = 0
        self._taken = 0  # of all that ever waited, how many were worked on or dropped
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._hurries = 0
        self._closed = False
        self._losses.renew()

    def put(self, entry: Entry) -> bool:
        """Leave an entry to the worker; False if there is none any more."""
        with self._changed:
            if self._closed or not self._has_worker():
                return False
            if len(self._waiting) >= self._size:
                self._waiting.popleft()
                self._taken += 1
                self._losses.add(1)
            self._waiting.append(entry)
            self.busy = True
            if self._asleep:
                self._changed.notify_all()
        self._losses.announce()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until the worker is through with what waits now.

        Args:
            timeout: Seconds.

        Returns:
            Whether that happened in time; False on the worker itself.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            goal = self._taken + self._in_hand + len(self._waiting)
            self._hurries += 1
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._taken >= goal, timeout)
            self._hurries -= 1
        return done

    def close(self, timeout: float) -> None:
        """Let the worker come to an end; what is left after ``timeout`` seconds is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        if thread is None or thread is not threading.current_thread():
            self._give_up(timeout)

    def _give_up(self, timeout: float) -> None:
        with self._changed:
            lost = len(self._waiting) + self._in_hand
            self._waiting.clear()
            self.busy = False
            self._losses.add(lost)
        if lost:
            logger.warning(
                "Handler %r: %d events on a device were not judged within %s s",
                self._handler_id,
                lost,
                timeout,
            )
        self._losses.announce(at_once=True)

    def _has_worker(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(
                target=self._run, name=f"trainbus-{self._handler_id}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down, or has no thread left to give
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._work(batch)
            except Exception as error:
                log_error(error, "Handler %r: an error on its thread: %r", self._handler_id, error)
            with self._changed:
                self._taken += self._in_hand
                self._in_hand = 0
                self.busy = bool(self._waiting)
                self._changed.notify_all()
            self._losses.announce()
        self._losses.announce(at_once=True)

    def _take(self) -> list[Entry]:
        """What waits; nothing if no more will come."""
        with self._changed:
            self._asleep = True
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._asleep = False
            self._changed.wait_for(lambda: self._hurries or self._closed, LINGER)
            batch = list(self._waiting)
            self._waiting.clear()
            self._in_hand = len(batch)
            return batch
