"""Delivery on a worker thread, behind a bounded queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final

from handlers.clock import EVENT_TIME
from handlers.copies import copy_of
from handlers.device import needs_device, read_many
from handlers.each import BatchError
from handlers.errors import DeliveryError
from handlers.event_queue import EventQueue, Outcome
from handlers.forks import renew_in_children
from handlers.lifecycle import close_sink
from handlers.losses import Losses, countable
from handlers.patience import PATIENCE, Patience
from handlers.records import (
    Batching,
    Eager,
    Flushable,
    Idling,
    Keeping,
    Overflow,
    Selective,
    Sink,
    Site,
    TimedEvent,
)
from handlers.worker import Worker, failure_of, on_worker
from telemetry import Attachment, EventName

ANNOUNCED: Final = ("telemetry", "handler")
"""What the names of the bus's own events begin with."""
ASK_AGAIN: Final = 0.1
"""Seconds until a sink that could not flush is asked again, while somebody waits for that."""

logger = logging.getLogger("telemetry")

_given_time, _new = EVENT_TIME.get, tuple.__new__

MAX_NAMES: Final = 4096
"""Of events, of which is known whether the sink hears them."""


class Background:
    """Calls a sink for the events that the emitter's thread should not deliver itself.

    Args:
        site: Where the sink is attached.
        sink: What takes the events, called with numbers where tensors were emitted.
        always: Whether the worker delivers all events, or only those with a value on a device
            and what comes while it still has one of these.
        queue_size: How many events may wait.
        overflow: What happens to an event when that many do.
        flush_timeout: Seconds that `close` waits.
        stop_on_failure: Whether the first error of the sink is the last.
    """

    def __init__(
        self,
        site: Site,
        sink: Sink,
        *,
        always: bool,
        queue_size: int,
        overflow: Overflow,
        flush_timeout: float,
        stop_on_failure: bool,
    ) -> None:
        self._site = site
        self._sink = sink
        self._deliver_one = sink.deliver if isinstance(sink, Eager) else sink
        # Asked once: what a Protocol is asked of takes longer than some events.
        self._batching = sink if isinstance(sink, Batching) else None
        self._idling = sink if isinstance(sink, Idling) else None
        self._selective = sink if isinstance(sink, Selective) else None
        self._heard: dict[EventName, bool] = {}
        self._always = always
        self._blocks = overflow == "block"
        self._flush_timeout = flush_timeout
        self._stop_on_failure = stop_on_failure
        self._queue = EventQueue(queue_size, overflow)
        self._put = self._queue.put
        self._losses = Losses(site, overflow)
        self._failed = Losses(site, "failed")
        self._attachment: Attachment | None = None
        self._patience = Patience(self._expire)
        self._last_event: EventName = ()
        self._flushes: list[Future[bool]] = []  # for which the sink is to be asked again
        self._starting = threading.RLock()
        self._thread: Worker | None = None
        self._refusal = ""  # why the sink gets no more events
        self._refused = self._losses  # where these are counted
        self._deadline: float | None = None  # for the worker's end, once that was asked for
        renew_in_children(self)

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Deliver the event, now or on the worker."""
        known = self._heard.get(event)
        if not (self._is_heard(event) if known is None else known):
            return
        if self._always or self._queue or needs_device(measurements, metadata):
            self.defer(event, measurements, metadata)
        else:
            self._sink(event, measurements, metadata, config)

    def defer(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Let the worker deliver the event; after `close`, deliver it here."""
        time_ns = _given_time()
        if time_ns is None:
            time_ns = time.time_ns()
        if type(measurements) is dict and type(metadata) is dict:
            # Quicker by half than what stands below; emitters wait for it.
            entry = _new(TimedEvent, (time_ns, event, measurements.copy(), metadata.copy()))
        else:
            entry = TimedEvent(time_ns, event, copy_of(measurements), copy_of(metadata))
        outcome = self._put(entry, self._blocks and not on_worker())
        if outcome != "accepted":
            self._not_accepted(entry, outcome)
        if self._thread is None:
            self._ensure_worker()

    def start(self, attachment: Attachment) -> None:
        """Deliver from now on; ``attachment`` is told what fails."""
        self._attachment = attachment
        if self._queue:
            self._ensure_worker()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything emitted before this call is delivered and the sink is flushed.

        Args:
            timeout: Seconds, by default ``flush_timeout``.

        Returns:
            Whether that happened in time. False on the worker's own thread, which cannot wait for
            itself, and after what waited was given up, because the sink failed or hung.

        Raises:
            Exception: What the sink's own ``flush`` raised.
        """
        if self._queue.closed:
            return not self._refusal
        if self._thread is None:
            return self._flush_sink()
        if self._thread is threading.current_thread():
            return False
        future = self._queue.request_flush()
        wait([future], self._flush_timeout if timeout is None else timeout)
        # From here on the sink is not asked again, unless it has answered in this moment.
        return not future.cancel() and future.result() and not self._refusal

    def begin_close(self) -> None:
        """Let the worker deliver what waits and close the sink, without waiting for that."""
        with self._starting:
            if self._thread is not None:
                self._let_go()

    def close(self) -> None:
        """Deliver what waits, and close the sink, within ``flush_timeout`` of the beginning.

        What is not delivered by then is counted and announced; the sink is then closed by the
        worker when it comes back from what holds it.
        """
        # From here on no worker is started; one that was is seen.
        with self._starting:
            deadline = self._let_go()
            thread = self._thread
        if thread is None:
            self._run()
        elif thread is not threading.current_thread():  # the worker ends itself after this event
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._expire()
                self._losses.announce_rest()

    def after_fork(self) -> None:
        """In a forked child: without the parent's thread and what waits for it."""
        self._starting = threading.RLock()
        self._patience = Patience(self._expire)
        self._queue.renew()
        self._flushes = []
        self._thread = None
        self._deadline = None

    def _let_go(self) -> float:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._flush_timeout
        self._queue.close()
        self._patience.deadline = self._deadline
        self._patience.closing.set()
        return self._deadline

    def _not_accepted(self, entry: TimedEvent, outcome: Outcome) -> None:
        if outcome == "dropped":
            self._losses.add(1, "the queue is full")
        elif entry.event[:2] == ANNOUNCED:
            # What others lost while all were closed is no loss of this one, or they would go on
            # telling each other.
            return
        elif self._refusal:
            # A sink that hangs would hold the emitter as well; one that failed is not called again.
            self._refused.add(1, self._refusal)
        else:
            numbers, plain = read_many([entry.measurements, entry.metadata])
            self._call_sink(TimedEvent(entry.time_ns, entry.event, numbers, plain))

    def _is_heard(self, event: EventName) -> bool:
        heard = self._selective is None or self._selective.hears(event)
        if len(self._heard) < MAX_NAMES:
            self._heard[event] = heard
        return heard

    def _ensure_worker(self) -> None:
        with self._starting:
            if self._thread is not None or self._attachment is None or self._queue.closing:
                return
            thread = Worker(target=self._run, name=f"trainbus-{self._site.handler_id}", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down, or has no thread left to give
                self._thread = None
                self._deliver(self._queue.take_now())

    def _run(self) -> None:
        # Whatever happens: an emitter that waits for room, or for a flush, is to be let go.
        with ExitStack() as last:
            last.callback(self._answer_rest)
            last.enter_context(self._spared())
            last.callback(self._announce_rest)
            last.callback(close_sink, self._site, self._sink)
            last.enter_context(self._spared())
            last.callback(self._end)
            self._work()

    def _work(self) -> None:
        if on_worker():
            PATIENCE.set(self._patience)
        timeout = None
        while (batch := self._queue.take(timeout)) is not None:
            self._deliver(batch)
            due = self._queue.due_flushes()
            self._flushes = [one for one in (*self._flushes, *due) if not self._answer(one)]
            timeout = ASK_AGAIN if self._flushes else self._rest(idle=not (batch or due))
            with self._spared():
                self._losses.announce_if_due()
                self._failed.announce_if_due()

    def _rest(self, *, idle: bool) -> float | None:
        """Let the sink do what it does when nothing comes; when to ask it again."""
        sink = self._idling
        if sink is None:
            return None
        if not idle:
            return sink.idle_after
        again: list[object] = []
        error = failure_of(lambda: again.append(sink.idle()))
        if error is not None:
            with self._spared():
                self._fail(self._last_event, error)
        return sink.idle_after if any(again) else None

    def _end(self) -> None:
        if not self._queue.closed:
            because = "its delivery was interrupted"
            self._failed.add(self._give_up(because, self._failed), because)
        self._announce_rest()

    def _announce_rest(self) -> None:
        self._losses.announce_rest()
        self._failed.announce_rest()

    def _answer_rest(self) -> None:
        due = [(future, True) for future in self._queue.due_flushes()]
        for future, answer in (*due, *((future, False) for future in self._flushes)):
            with suppress(InvalidStateError):  # nobody waits any more
                future.set_result(answer)

    def _deliver(self, batch: list[TimedEvent]) -> None:
        if batch:
            self._last_event = batch[-1].event
        mappings = [entry.measurements for entry in batch] + [entry.metadata for entry in batch]
        values = read_many(mappings)
        ready = batch
        if values is not mappings:
            read = zip(batch, values[: len(batch)], values[len(batch) :], strict=True)
            ready = [TimedEvent(one.time_ns, one.event, *own) for one, *own in read]
        if self._batching is not None:
            self._deliver_together(self._batching, ready)
        else:
            self._deliver_each(ready)

    def _deliver_together(self, sink: Batching, batch: list[TimedEvent]) -> None:
        if not (batch and self._queue.delivering):
            return
        error = failure_of(lambda: sink.deliver_many(batch))
        failed: Sequence[TimedEvent] = batch
        if isinstance(error, BatchError):
            failed, error = error.failed, error.error
        if self._queue.done(len(batch)) and error is not None:
            with self._spared():
                # It speaks of one event; the others that failed are counted.
                self._fail(failed[0].event, error, countable(failed[1:]))

    def _deliver_each(self, batch: list[TimedEvent]) -> None:
        for entry in batch:
            # Given up meanwhile: by a failure, by a close that waited long enough or by a fork.
            if not self._queue.delivering:
                return
            error = failure_of(partial(self._call_sink, entry))
            if not self._queue.done():
                return
            if error is not None:
                with self._spared():
                    self._fail(entry.event, error)

    def _call_sink(self, entry: TimedEvent) -> None:
        token = EVENT_TIME.set(entry.time_ns)
        try:
            self._deliver_one(entry.event, entry.measurements, entry.metadata, None)
        finally:
            EVENT_TIME.reset(token)

    def _fail(self, event: EventName, error: Exception, lost: int = 0) -> None:
        assert self._attachment is not None  # noqa: S101 -- no worker runs before start()
        because = "they came together with one that failed"
        # Before it is detached, because that can deliver what waits.
        if self._stop_on_failure:
            because = "they came behind one that failed"
            lost += self._give_up(because, self._failed)
        try:
            self._attachment.fail(event, error)
        finally:
            self._failed.add(lost, because)

    def _expire(self) -> None:
        """Give up what is not delivered by now; by who waits for the worker, or by itself.

        It is announced later: a sink that has patience may hold a lock.
        """
        with self._starting:
            if not self._patience.over.is_set():
                self._patience.over.set()
                kept = self._sink.kept() if isinstance(self._sink, Keeping) else 0
                lost = self._give_up(f"no end within {self._flush_timeout} s", self._losses)
                self._losses.note(kept + lost, self._refusal)

    def _give_up(self, because: str, refused: Losses) -> int:
        """Call the sink no more, but to close it; how many events waited for it."""
        self._refusal, self._refused = because, refused
        self._let_go()
        return self._queue.discard()

    def _answer(self, future: Future[bool]) -> bool:
        """Flush the sink for somebody who waits; False says that it is to be asked again."""
        answers: list[bool] = []
        error = None
        if not self._refusal:  # else it has failed with what was delivered just before
            error = failure_of(lambda: answers.append(self._flush_sink()))
        if answers == [False]:
            return future.cancelled()
        if isinstance(error, DeliveryError):  # nothing would ever be delivered
            with self._spared():
                self._fail(self._last_event, error)
        with suppress(InvalidStateError):  # nobody waits any more
            if error is None:
                future.set_result(not self._refusal)
            else:
                future.set_exception(error)
        return True

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """Keep the worker from ending with what others raise: who hears what it announces."""
        try:
            yield
        except BaseException:
            if not on_worker():
                raise
            logger.exception("Handler %r: an error on its worker thread", self._site.handler_id)

    def _flush_sink(self) -> bool:
        return not (isinstance(self._sink, Flushable) and self._sink.flush() is False)
