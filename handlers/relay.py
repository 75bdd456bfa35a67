"""From a stream to handlers: what is read is emitted again, delivered, and then acknowledged."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

from handlers.clock import at_time
from handlers.losses import PASSING
from handlers.patience import PATIENCE, Patience
from handlers.redis_reader import StreamEntry, StreamReader
from handlers.sink_attachment import SinkAttachment
from telemetry import Registry

BATCH: Final = 500
"""Entries that are read and acknowledged together."""
REMEMBERED: Final = 100_000
"""Entries of which it is known that they were delivered, should they come again."""
WAIT: Final = 0.5
"""Seconds that a read waits for an entry, between two looks at whether to stop."""
LOOK: Final = 1.0
"""The same, while a handler takes long."""
GRACE: Final = 5.0
"""Seconds to end what was begun, once it is to stop."""
POLL: Final = 0.05

logger = logging.getLogger("telemetry")


class RelayError(RuntimeError):
    """What was read cannot be delivered; it is not acknowledged."""


class Stop(Patience):
    """Tells a relay to stop, from a signal handler: by a flag, because that must take no lock.

    Attributes:
        until: Until when, by the monotonic clock, a server that is away is tried again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.until = inf
        self._deadline: float | None = None

    def __call__(self) -> None:
        """Stop: end what was begun, for at most some seconds."""
        self._deadline = time.monotonic() + GRACE

    @property
    def asked(self) -> bool:
        """Whether it is to stop."""
        return self._deadline is not None

    @property
    def late(self) -> bool:
        """Whether it should have stopped by now."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def wait(self, seconds: float, least: float = 0.0) -> bool:
        """Wait before another attempt; False says that there is to be none."""
        end = min(time.monotonic() + max(seconds, least), self.until)
        while time.monotonic() < end and not self.asked:
            time.sleep(POLL)
        return not self.asked and time.monotonic() < self.until


class Flush:
    """Flushes a handler, for as long as that takes, in a thread of its own.

    To ask it again and again for a short while would never end where its flush takes longer.

    Args:
        attachment: The handler's.
    """

    def __init__(self, attachment: SinkAttachment) -> None:
        self.attachment = attachment
        self._delivered = False
        self._error: Exception | None = None
        self._start()

    def join(self, seconds: float) -> None:
        """Wait for it, for at most so many seconds."""
        self._thread.join(seconds)

    def is_done(self) -> bool:
        """Whether the handler has delivered all that it was given.

        Raises:
            RelayError: It failed, now or before.
        """
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise RelayError(
                f"Handler {self.attachment.id!r} failed: {self._error}"
            ) from self._error
        if not self.attachment.active:
            raise RelayError(
                f"Handler {self.attachment.id!r} has failed and was detached. What it was given "
                "last is not acknowledged: the next relay of the group gets it."
            )
        if not self._delivered:
            self._start()
        return self._delivered

    def _start(self) -> None:
        # With the patience of who waits, should there be no worker to flush it.
        run = partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="trainbus-flush", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._delivered = self.attachment.flush(threading.TIMEOUT_MAX)
        except Exception as error:  # for who waits
            self._error = error
        if not self._delivered:
            time.sleep(POLL)


@dataclass
class Totals:
    """What a relay has done: delivered and acknowledged.

    Attributes:
        entries: Entries that were read.
        events: Events that were emitted again.
        duplicates: Entries left out because their event had been emitted.
        unreadable: Entries left out because they hold no event.
        lost: Events that handlers have lost, by the reason (``policy``).
    """

    entries: int = 0
    events: int = 0
    duplicates: int = 0
    unreadable: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def add(self, more: Totals) -> None:
        """Count what was done since."""
        self.entries += more.entries
        self.events += more.events
        self.duplicates += more.duplicates
        self.unreadable += more.unreadable


class Relay:
    """Emits what a reader reads on a bus, with the time that it had.

    An entry is acknowledged when all handlers have delivered it, or lost it for a reason that does
    not pass. So each arrives at least once: what was not acknowledged when a relay died, or when a
    handler could not deliver, comes again. An event that comes twice because its
    sender did not hear the answer is emitted once, among the last 100,000.

    Args:
        reader: Where the entries come from.
        registry: The bus.
        attachments: The handlers on it; attach them with ``background=True``, so that they are
            told the events' own time, and ``overflow="block"``.
        stop: Ends it.
    """

    def __init__(
        self,
        reader: StreamReader,
        registry: Registry,
        attachments: Sequence[SinkAttachment],
        *,
        stop: Stop,
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._attachments = attachments
        self._stop = stop
        self._idle_after: float | None = None
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self.totals = Totals()

    def count_losses(self) -> None:
        """Count what the handlers have lost for good: of what is acknowledged, none comes again."""
        losses = [item for one in self._attachments for item in one.lost.items()]
        self.totals.lost = {
            policy: sum(count for name, count in losses if name == policy) for policy, _ in losses
        }

    def run(
        self,
        *,
        count: int | None = None,
        until_idle: float | None = None,
        progress: Callable[[Totals], object] | None = None,
    ) -> Totals:
        """Relay until it is told to stop.

        Args:
            count: Stop after so many entries.
            until_idle: Stop when nothing has come for so many seconds.
            progress: Called about once a second, and after each batch.

        Raises:
            RelayError: A handler failed, lost what it was given for a reason that passes, or did
                not deliver before the end; or the server was away for ``until_idle``.
            DeliveryError: The server refuses to be read.
        """
        token = PATIENCE.set(self._stop)
        try:
            self._run(count, until_idle, progress)
        finally:
            PATIENCE.reset(token)
        return self.totals

    def _run(
        self,
        count: int | None,
        until_idle: float | None,
        progress: Callable[[Totals], object] | None,
    ) -> None:
        self._idle_after = until_idle
        self._be_patient()
        self._reader.open()
        wait = WAIT if until_idle is None else min(WAIT, until_idle)
        last = time.monotonic()
        while not self._stop.asked:
            left = BATCH if count is None else count - self.totals.entries
            if left <= 0:
                return
            batch = self._reader.next(min(BATCH, left), wait=wait)
            now = time.monotonic()
            if batch:
                self._relay(batch)
                last = time.monotonic()
                self._be_patient()
            elif until_idle is not None and now - last >= until_idle:
                if self._reader.is_down:
                    raise RelayError(f"The server cannot be reached: {self._reader}.")
                return
            if progress is not None:
                progress(self.totals)

    def _be_patient(self) -> None:
        """From now on, a server that is away has as long as one that has nothing."""
        if self._idle_after is not None:
            self._stop.until = time.monotonic() + self._idle_after

    def _relay(self, batch: Sequence[StreamEntry]) -> None:
        done = Totals(entries=len(batch))
        before = [_passing(attachment) for attachment in self._attachments]
        for entry in batch:
            self._emit(entry, done)
        self._deliver(batch)
        for attachment, count in zip(self._attachments, before, strict=True):
            self._check_losses(attachment, _passing(attachment) - count)
        self._be_patient()
        if not self._reader.acknowledge(batch):
            raise RelayError(
                f"The server did not hear that what was read last was delivered (entries: "
                f"{len(batch)}), so it will be delivered again."
            )
        self.totals.add(done)
        self.count_losses()

    def _emit(self, entry: StreamEntry, done: Totals) -> None:
        if entry.event is None:
            if self.totals.unreadable + done.unreadable == 0:
                logger.warning("Entry %s is left out: %s.", entry.key, entry.problem)
            done.unreadable += 1
        elif entry.origin in self._seen:
            done.duplicates += 1
        else:
            self._remember(entry.origin)
            time_ns, event, measurements, metadata = entry.event
            with at_time(time_ns):
                self._registry.execute(event, measurements, metadata)
            done.events += 1

    def _remember(self, origin: str | None) -> None:
        if origin is None:
            return
        self._seen.add(origin)
        self._order.append(origin)
        if len(self._order) > REMEMBERED:
            self._seen.remove(self._order.popleft())

    def _deliver(self, batch: Sequence[StreamEntry]) -> None:
        """Wait for as long as it takes: what cannot be delivered now waits in the stream."""
        flushes = [Flush(attachment) for attachment in self._attachments]
        hold_at = time.monotonic() + self._reader.hold_after
        while flushes:
            flushes[0].join(min(LOOK, self._reader.hold_after))
            flushes = [one for one in flushes if not one.is_done()]
            if flushes and self._stop.late:
                raise RelayError(
                    f"Handler {flushes[0].attachment.id!r} has not delivered in time what it was "
                    f"given last (entries: {len(batch)}). It is not acknowledged: the next relay "
                    "of the group gets it."
                )
            if flushes and time.monotonic() >= hold_at:
                self._reader.hold(batch)
                hold_at = time.monotonic() + self._reader.hold_after

    def _check_losses(self, attachment: SinkAttachment, count: int) -> None:
        if count:
            raise RelayError(
                f"Handler {attachment.id!r} could not deliver all that it was given last (events "
                f"lost: {count}). It is not acknowledged: the next relay of the group gets it."
            )


def _passing(attachment: SinkAttachment) -> int:
    """How many events a handler has lost that it would deliver another time."""
    return sum(count for policy, count in attachment.lost.items() if policy in PASSING)
