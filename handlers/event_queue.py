"""The bounded queue between emitters and a background worker."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Final, Literal, TypeAlias

from handlers.losses import countable, is_announcement
from handlers.records import Overflow, TimedEvent

LINGER: Final = 0.05
"""Seconds that a worker waits for company for an event: one wake-up and one device copy for all."""
PACE: Final = 0.2
"""Seconds from one batch to the next while events keep coming: a wake-up disturbs the emitters."""
BATCH: Final = 256

Outcome: TypeAlias = Literal["accepted", "dropped", "closed"]
"""Of these, "dropped" is what counts as a loss: not an announcement of losses."""


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
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[TimedEvent] = deque()  # the newest is number `_accepted`
        self._taken: deque[tuple[int, TimedEvent]] = deque()
        self._flushes: deque[tuple[int, Future[bool]]] = deque()
        self._accepted = 0
        self._blocked = 0
        self._next = 0.0  # when the worker takes what came meanwhile
        self._asleep = False  # whether it has to be woken for an event
        self.closed = self.closing

    def __len__(self) -> int:
        """What waits, and what was taken and is not done."""
        return len(self._waiting) + len(self._taken)

    @property
    def delivering(self) -> bool:
        """Whether something was taken that is neither done nor discarded."""
        return bool(self._taken)

    def put(self, entry: TimedEvent, may_wait: bool) -> Outcome:
        """Add an entry; ``"dropped"`` says that this one or an older one was lost for it."""
        with self._lock:  # that of the condition, which would take it in Python
            waiting = self._waiting
            outcome: Outcome = "accepted"
            if self.closed or len(waiting) >= self._size:
                if may_wait and self._overflow == "block":
                    self._wait_for_room()
                if self.closed:
                    return "closed"
                if len(waiting) >= self._size:
                    if self._overflow != "drop_oldest":
                        return _outcome(entry)
                    outcome = _outcome(waiting.popleft())
            self._accepted += 1
            waiting.append(entry)
            # Waking the worker for each event would cost the emitter a switch of threads.
            if self._asleep or len(waiting) == self._enough:
                self._changed.notify_all()
            return outcome

    def take(self, timeout: float | None = None) -> list[TimedEvent] | None:
        """Wait for entries, or for a flush, and take a batch.

        An empty one says that neither came in time, None that there is no more.
        """
        with self._changed:
            pause = self._next - time.monotonic()
            pause = pause if timeout is None else min(pause, timeout)
            self._changed.wait_for(self._is_worth_it, pause)
            if not self._has_work():
                self._asleep = True
                found = self._changed.wait_for(self._has_work, timeout)
                self._asleep = False
                if not found:
                    return []
                self._changed.wait_for(self._is_worth_it, LINGER)
            self._next = time.monotonic() + PACE
            if self.closing and not self._waiting:
                self._end()
                return None
            return self.take_now()

    def take_now(self) -> list[TimedEvent]:
        """Take a batch of what there is."""
        with self._changed:
            count = min(BATCH, len(self._waiting))
            oldest = self._oldest_waiting()
            batch = [self._waiting.popleft() for _ in range(count)]
            self._taken.extend(enumerate(batch, oldest))
            if self._blocked:
                self._changed.notify_all()
            return batch

    def done(self, count: int = 1) -> int:
        """Tick off the oldest entries taken; how many of these were not discarded meanwhile."""
        with self._changed:
            count = min(count, len(self._taken))
            for _ in range(count):
                self._taken.popleft()
            return count

    def close(self) -> None:
        """Let the worker take what waits, and end."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()

    def discard(self) -> int:
        """Forget everything, and say how much of it counts; while closing, accept no more."""
        with self._changed:
            count = countable((*(entry for _, entry in self._taken), *self._waiting))
            self._waiting.clear()
            self._taken.clear()
            if self.closing:
                self._end()
            self._changed.notify_all()
            return count

    def request_flush(self) -> Future[bool]:
        """Ask the worker for a flush, as soon as all that was put so far is done."""
        with self._changed:
            future: Future[bool] = Future()
            if self.closed:
                future.set_result(True)
                return future
            self._flushes.append((self._accepted, future))
            self._changed.notify_all()
            return future

    def due_flushes(self) -> list[Future[bool]]:
        """The flushes that wait for nothing any more."""
        with self._changed:
            # Numbers and not counts: what is dropped meanwhile must not pass for delivered.
            oldest = self._taken[0][0] if self._taken else self._oldest_waiting()
            due = [future for number, future in self._flushes if number < oldest]
            for _ in due:
                self._flushes.popleft()
            return due

    def _oldest_waiting(self) -> int:
        """Its number; of those that were accepted, nothing but the oldest goes."""
        return self._accepted - len(self._waiting) + 1

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


def _outcome(lost: TimedEvent) -> Outcome:
    return "accepted" if is_announcement(lost.event) else "dropped"
