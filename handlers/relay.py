"""From a stream to handlers: what is read is emitted again, delivered, and then acknowledged."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from handlers.clock import at_time
from handlers.flushing import Flush
from handlers.losses import passing
from handlers.patience import PATIENCE
from handlers.redis_reader import StreamEntry, StreamReader
from handlers.sink_attachment import SinkAttachment
from handlers.stopping import Stop
from telemetry import Registry

BATCH: Final = 500
"""Entries that are read and acknowledged together."""
REMEMBERED: Final = 100_000
"""Entries of which it is known that they were delivered, should they come again."""
WAIT: Final = 0.5
"""Seconds that a read waits for an entry, between two looks at whether to stop."""
LOOK: Final = 1.0
"""The same, while a handler takes long."""
AFTERMATH: Final = (
    "What it was given last is not acknowledged: the next relay of the group gets it."
)

logger = logging.getLogger("telemetry")


class RelayError(RuntimeError):
    """What was read cannot be delivered; it is not acknowledged."""


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
            RelayError: A handler lost what it was given for a reason that passes, or did not
                deliver before the end; or the server was away for ``until_idle``.
            DeliveryError: A handler failed, or the server refuses to be read.
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
        before = [passing(attachment.lost) for attachment in self._attachments]
        for entry in batch:
            self._emit(entry, done)
        self._deliver(batch)
        for attachment, count in zip(self._attachments, before, strict=True):
            self._check_losses(attachment, passing(attachment.lost) - count)
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
        flushes = [Flush(attachment, AFTERMATH) for attachment in self._attachments]
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
