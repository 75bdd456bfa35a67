"""From a recorded run to handlers: its events are emitted again, with the times that they had."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from handlers.clock import at_time
from handlers.errors import DeliveryError
from handlers.flushing import Flush
from handlers.losses import passing
from handlers.patience import PATIENCE
from handlers.sink_attachment import SinkAttachment
from handlers.stopping import POLL, Stop
from telemetry import EventName, Registry

LOOK: Final = 0.5
"""Seconds between two looks at handlers that deliver what they have."""
MARK: Final = 1.0
"""Seconds between two questions how far all handlers have delivered."""
AFTERMATH: Final = "Of what it was given last, some may be missing."


class Recorded(Protocol):
    """An event that was recorded; `telemetry.viewer.logs.entries.Entry` is one."""

    @property
    def source(self) -> Path:
        """The file it was recorded in."""

    @property
    def line(self) -> int:
        """Which of its lines."""

    @property
    def time_ns(self) -> int | None:
        """When it was emitted, in nanoseconds since 1970 (UTC); None where nobody knows."""

    @property
    def event(self) -> EventName:
        """Its name."""

    @property
    def measurements(self) -> Mapping[str, Any]:
        """What was measured."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else is known."""


@dataclass
class Replayed:
    """What a replay has done.

    Attributes:
        events: Events that were emitted again.
        undated: Those of them that had no time, and were emitted with the time of the replay.
        last: The last of them.
        delivered: The last of those up to which all handlers have delivered everything, None as
            long as that is not known of any. Behind an event that was lost for a reason that
            passes, there is none.
        lost: Events that handlers have lost, by the reason (``policy``).
    """

    events: int = 0
    undated: int = 0
    last: Recorded | None = None
    delivered: Recorded | None = None
    lost: dict[str, int] = field(default_factory=dict)


class Replay:
    """Emits recorded events on a bus, in their order and with their times.

    Args:
        registry: The bus.
        attachments: The handlers on it; attach them with ``background=True``, so that they are
            told the events' own time, and ``overflow="block"``, so that none is lost.
        stop: Ends it.
        speed: How many times as fast as it was; 0 is as fast as the handlers take it.
        clock: Seconds of a clock that only goes forward.

    Example:
        >>> import handlers
        >>> from telemetry.viewer.logs.entries import Entry
        >>> bus = Registry()
        >>> with handlers.attach("memory", registry=bus, background=True) as memory:
        ...     replay = Replay(bus, [memory], stop=Stop())
        ...     one = Entry(Path("run.jsonl"), 1, 0, ("training", "step"), {"loss": 2.5}, {})
        ...     replay.run([one]).events
        1
    """

    def __init__(
        self,
        registry: Registry,
        attachments: Sequence[SinkAttachment],
        *,
        stop: Stop,
        speed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._attachments = attachments
        self._stop = stop
        self._speed = speed
        self._clock = clock
        self._began: tuple[float, int] | None = None
        self._mark: Recorded | None = None
        self._flushes: list[Flush] = []
        self._next_mark = clock() + MARK
        self.totals = Replayed()

    def run(self, events: Iterable[Recorded]) -> Replayed:
        """Replay until there is no more, or until it is told to stop; then wait for the handlers.

        Args:
            events: What was recorded.

        Raises:
            DeliveryError: A handler failed, or did not deliver before the end.
        """
        token = PATIENCE.set(self._stop)
        try:
            with self._letting_go():
                for event in events:
                    if self._stop.asked or not self._wait_for(event):
                        break
                    self._emit(event)
                    self._look()
                if self.totals.events:
                    self._deliver()
        finally:
            PATIENCE.reset(token)
        return self.totals

    def count_losses(self) -> None:
        """Count what the handlers have lost so far."""
        lost: dict[str, int] = {}
        for policy, count in (item for one in self._attachments for item in one.lost.items()):
            lost[policy] = lost.get(policy, 0) + count
        self.totals.lost = lost

    def _wait_for(self, event: Recorded) -> bool:
        """Wait until its turn comes; False says that it is to stop."""
        if not self._speed or event.time_ns is None:
            return True
        if self._began is None:
            self._began = (self._clock(), event.time_ns)
        then, first = self._began
        turn = then + (event.time_ns - first) / 1e9 / self._speed
        while (ahead := turn - self._clock()) > 0:
            if not self._stop.wait(min(ahead, LOOK)):
                return False
            self._look()
        return True

    def _emit(self, event: Recorded) -> None:
        self._check()
        then = nullcontext() if event.time_ns is None else at_time(event.time_ns)
        with then:
            self._registry.execute(event.event, event.measurements, event.metadata)
        self.totals.events += 1
        self.totals.undated += event.time_ns is None
        self.totals.last = event

    def _check(self) -> None:
        for attachment in self._attachments:
            if not attachment.active:
                raise DeliveryError(
                    f"Handler {attachment.id!r} has failed and was detached. {AFTERMATH}"
                )

    def _look(self) -> None:
        """Ask the handlers now and then how far they are, without waiting for the answer."""
        if self._stop.asked or self._clock() < self._next_mark:
            return
        self._next_mark = self._clock() + MARK
        self._flushes = [one for one in self._flushes if not one.is_done()]
        if not self._flushes:
            self._note(self._mark)
            self._ask()

    def _ask(self) -> None:
        self._mark = self.totals.last
        self._flushes = [Flush(attachment, AFTERMATH) for attachment in self._attachments]

    def _note(self, mark: Recorded | None) -> None:
        """Remember that all was delivered up to a mark."""
        if not any(passing(attachment.lost) for attachment in self._attachments):
            self.totals.delivered = mark

    def _deliver(self) -> None:
        """Wait for as long as it takes, unless it is to stop."""
        if all(one.delivered for one in self._flushes):
            self._note(self._mark)
        self._ask()
        flushes = self._flushes
        while flushes:
            flushes[0].join(LOOK)
            late = self._stop.late  # those that fail then were detached for it
            if late and not all(one.attachment.active for one in flushes):
                break
            try:
                flushes = [one for one in flushes if not one.is_done()]
            except DeliveryError:
                if self._stop.late:  # by now
                    break
                raise
            if late:
                break
        if flushes:
            raise DeliveryError(
                f"Handler {flushes[0].attachment.id!r} has not delivered in time. {AFTERMATH}"
            )
        self._note(self._mark)

    @contextmanager
    def _letting_go(self) -> Iterator[None]:
        """Detach the handlers when it should have stopped: one that is full would hold it."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(POLL):
                if self._stop.late:
                    for attachment in self._attachments:
                        attachment.detach()
                    return

        thread = threading.Thread(target=watch, name="trainbus-replay", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
