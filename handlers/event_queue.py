"""The bounded queue between emitters and a background worker."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import Final, Literal, TypeAlias

from handlers.records import Overflow, TimedEvent

LINGER: Final = 0.05
"""Seconds that a worker waits for company for an event: one wake-up and one device copy for all."""
BATCH: Final = 256

Outcome: TypeAlias = Literal["accepted", "dropped", "closed"]


class EventQueue:
    """Entries wait here, at most ``size`` of them, until the worker takes a batch.

    The lock is re-entrant, because a finalizer or a signal handler may emit at any line of this
    file.

    Attributes:
        closing: Whether the worker is to end when nothing waits any more.
        closed: Whether it has ended, so that no more is accepted.
    """

    def __init__(self, size: int, overflow: Overflow) -> None:
        self._size = size
        self._overflow = overflow
        self._enough = min(BATCH, (size + 1) // 2)
        self.closing = False
        self.renew()

    def renew(self) -> None:
        """Start empty, with a new lock, in a forked child: what waits here is the parent's."""
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[tuple[int, TimedEvent]] = deque()
        self._taken: deque[int] = deque()
        self._flushes: deque[tuple[int, Future[None]]] = deque()
        self._accepted = 0
        self._blocked = 0
        self.closed = self.closing

    def __len__(self) -> int:
        """What waits, and what was taken and is not done."""
        return len(self._waiting) + len(self._taken)

    @property
    def delivering(self) -> bool:
        """Whether something was taken that is neither done nor discarded."""
        return bool(self._taken)

    def put(self, entry: TimedEvent, *, may_wait: bool) -> Outcome:
        """Add an entry; ``"dropped"`` says that this one or an older one was lost for it."""
        with self._changed:
            if len(self._waiting) >= self._size and self._overflow == "block" and may_wait:
                self._wait_for_room()
            if self.closed:
                return "closed"
            full = len(self._waiting) >= self._size
            if full and self._overflow != "drop_oldest":
                return "dropped"
            if full:
                self._waiting.popleft()
            self._accepted += 1
            self._waiting.append((self._accepted, entry))
            # Waking the worker for each event would cost the emitter a switch of threads.
            if len(self._waiting) in (1, self._enough):
                self._changed.notify_all()
            return "dropped" if full else "accepted"

    def take(self, timeout: float | None = None) -> list[TimedEvent] | None:
        """Wait for entries, or for a flush, and take a batch.

        An empty one says that neither came in time, None that there is no more.
        """
        with self._changed:
            if not self._changed.wait_for(self._has_work, timeout):
                return []
            self._changed.wait_for(self._is_worth_it, LINGER)
            if self.closing and not self._waiting:
                self._end()
                return None
            return self.take_now()

    def take_now(self) -> list[TimedEvent]:
        """Take a batch of what there is."""
        with self._changed:
            count = min(BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._taken.extend(number for number, _ in batch)
            self._changed.notify_all()
            return [entry for _, entry in batch]

    def done(self) -> bool:
        """Tick off the oldest entry taken; False if they were all discarded meanwhile."""
        with self._changed:
            if not self._taken:
                return False
            self._taken.popleft()
            return True

    def close(self) -> None:
        """Let the worker take what waits, and end."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()

    def discard(self) -> int:
        """Forget everything, and say how much that was; while closing, accept no more."""
        with self._changed:
            count = len(self)
            self._waiting.clear()
            self._taken.clear()
            if self.closing:
                self._end()
            self._changed.notify_all()
            return count

    def request_flush(self) -> Future[None]:
        """Ask the worker for a flush, as soon as all that was put so far is done."""
        with self._changed:
            future: Future[None] = Future()
            if self.closed:
                future.set_result(None)
                return future
            self._flushes.append((self._accepted, future))
            self._changed.notify_all()
            return future

    def due_flushes(self) -> list[Future[None]]:
        """The flushes that wait for nothing any more."""
        with self._changed:
            # Numbers and not counts: what is dropped meanwhile must not pass for delivered.
            waiting = self._waiting[0][0] if self._waiting else self._accepted + 1
            oldest = self._taken[0] if self._taken else waiting
            due = [future for number, future in self._flushes if number < oldest]
            for _ in due:
                self._flushes.popleft()
            return due

    def _has_work(self) -> bool:
        return bool(self._waiting or self._flushes) or self.closing

    def _wait_for_room(self) -> None:
        self._blocked += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: len(self._waiting) < self._size or self.closed)
        finally:
            self._blocked -= 1

    def _end(self) -> None:
        self.closed = True
        self._changed.notify_all()

    def _is_worth_it(self) -> bool:
        hurry = self.closing or self._flushes or self._blocked
        return bool(hurry) or len(self._waiting) >= self._enough
