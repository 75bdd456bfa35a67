"""Delivery on a worker thread, behind a bounded queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from handlers.clock import EVENT_TIME
from handlers.device import needs_device
from handlers.event_queue import EventQueue
from handlers.forks import renew_in_children
from handlers.lifecycle import close_sink
from handlers.losses import Losses
from handlers.patience import PATIENCE, Patience
from handlers.records import (
    Batching,
    Eager,
    Flushable,
    Idling,
    Overflow,
    Sink,
    Site,
    TimedEvent,
)
from telemetry import Attachment, EventName
from telemetry.values import jsonable, to_python_many

logger = logging.getLogger("telemetry")


class Worker(threading.Thread):
    """A thread of ours, which must not wait for room in a queue: it is what makes room."""


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
        self._always = always
        self._blocks = overflow == "block"
        self._flush_timeout = flush_timeout
        self._stop_on_failure = stop_on_failure
        self._queue = EventQueue(queue_size, overflow)
        self._losses = Losses(site, overflow)
        self._attachment: Attachment | None = None
        self._patience = Patience()
        self._last_event: EventName = ()
        self._starting = threading.RLock()
        self._thread: Worker | None = None
        self._refusal = ""  # why the sink gets no more events
        renew_in_children(self)

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Deliver the event, now or on the worker."""
        if self._always or self._queue or needs_device(measurements, metadata):
            self.defer(event, measurements, metadata)
        else:
            self._sink(event, measurements, metadata, config)

    def defer(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Let the worker deliver the event; after `close`, deliver it here."""
        entry = TimedEvent(time.time_ns(), event, _copy(measurements), _copy(metadata))
        outcome = self._queue.put(entry, may_wait=self._blocks and not _on_worker())
        if outcome == "dropped":
            self._losses.add(1, "the queue is full")
        elif outcome == "closed" and self._refusal:
            # A sink that hangs would hold the emitter as well; one that failed is not called again.
            self._losses.add(1, self._refusal)
        elif outcome == "closed":
            numbers, plain = to_python_many([entry.measurements, entry.metadata])
            self._call_sink(TimedEvent(entry.time_ns, event, numbers, plain))
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
            self._flush_sink()
            return True
        if self._thread is threading.current_thread():
            return False
        future = self._queue.request_flush()
        done, _ = wait([future], self._flush_timeout if timeout is None else timeout)
        if done:
            future.result()
        return bool(done)

    def close(self) -> None:
        """Deliver what waits, for at most ``flush_timeout`` seconds, and close the sink.

        What is not delivered by then is counted and announced; the sink is then closed by the
        worker when it comes back from what holds it.
        """
        self._queue.close()
        self._patience.closing.set()
        # From here on no worker is started; one that was is seen.
        with self._starting:
            thread = self._thread
        if thread is None:
            self._run()
        elif thread is not threading.current_thread():  # the worker ends itself after this event
            thread.join(self._flush_timeout)
            if thread.is_alive():
                lost = self._give_up(f"no end within {self._flush_timeout} s")
                self._losses.add(lost, self._refusal)
                self._losses.announce_rest()

    def after_fork(self) -> None:
        """In a forked child: without the parent's thread and what waits for it."""
        self._starting = threading.RLock()
        self._patience = Patience()
        self._queue.renew()
        self._thread = None

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
            last.callback(close_sink, self._site, self._sink)
            last.enter_context(self._spared())
            last.callback(self._end)
            self._work()

    def _work(self) -> None:
        if _on_worker():
            PATIENCE.set(self._patience)
        timeout = None
        while (batch := self._queue.take(timeout)) is not None:
            self._deliver(batch)
            due = self._queue.due_flushes()
            for future in due:
                self._answer(future)
            timeout = self._rest(batch, idle=not (batch or due))
            with self._spared():
                self._losses.announce_if_due()

    def _rest(self, batch: list[TimedEvent], *, idle: bool) -> float | None:
        """Let the sink do what it does when nothing comes; when to ask it again."""
        sink = self._sink
        if not isinstance(sink, Idling):
            return None
        if batch:
            self._last_event = batch[-1].event
        if not idle:
            return sink.idle_after
        again: list[object] = []
        error = _failure_of(lambda: again.append(sink.idle()))
        if error is not None:
            with self._spared():
                self._fail(self._last_event, error)
        return sink.idle_after if any(again) else None

    def _end(self) -> None:
        if not self._queue.closed:
            self._losses.add(self._give_up("its delivery was interrupted"), self._refusal)
        self._losses.announce_rest()

    def _answer_rest(self) -> None:
        for future in self._queue.due_flushes():
            future.set_result(None)

    def _deliver(self, batch: list[TimedEvent]) -> None:
        size = len(batch)
        mappings = [entry.measurements for entry in batch] + [entry.metadata for entry in batch]
        values = to_python_many(mappings)
        ready = [
            TimedEvent(entry.time_ns, entry.event, numbers, metadata)
            for entry, numbers, metadata in zip(batch, values[:size], values[size:], strict=True)
        ]
        if isinstance(self._sink, Batching):
            self._deliver_together(self._sink, ready)
        else:
            self._deliver_each(ready)

    def _deliver_together(self, sink: Batching, batch: list[TimedEvent]) -> None:
        if not (batch and self._queue.delivering):
            return
        error = _failure_of(lambda: sink.deliver_many(batch))
        if all(self._queue.done() for _ in batch) and error is not None:
            with self._spared():
                self._fail(batch[0].event, error)

    def _deliver_each(self, batch: list[TimedEvent]) -> None:
        for entry in batch:
            # Given up meanwhile: by a failure, by a close that waited long enough or by a fork.
            if not self._queue.delivering:
                return
            error = _failure_of(partial(self._call_sink, entry))
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

    def _fail(self, event: EventName, error: Exception) -> None:
        assert self._attachment is not None  # noqa: S101 -- no worker runs before start()
        # Before it is detached, because that can deliver what waits.
        lost = self._give_up("they came behind one that failed") if self._stop_on_failure else 0
        try:
            self._attachment.fail(event, error)
        finally:
            self._losses.add(lost, self._refusal)

    def _give_up(self, because: str) -> int:
        """Call the sink no more; how many events waited for it."""
        self._refusal = because
        self._queue.close()
        self._patience.closing.set()
        self._patience.over.set()
        return self._queue.discard()

    def _answer(self, future: Future[None]) -> None:
        try:
            self._flush_sink()
        except BaseException as error:
            future.set_exception(_as_exception(error))
            if not (isinstance(error, Exception) or _on_worker()):
                raise
        else:
            future.set_result(None)

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """Keep the worker from ending with what others raise: who hears what it announces."""
        try:
            yield
        except BaseException:
            if not _on_worker():
                raise
            logger.exception("Handler %r: an error on its worker thread", self._site.handler_id)

    def _flush_sink(self) -> None:
        if isinstance(self._sink, Flushable):
            self._sink.flush()


def _copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(mapping)
    except Exception:
        if not isinstance(mapping, Mapping):
            raise  # an emitter's mistake, of which the bus tells it
        return {"unreadable": jsonable(mapping)}


def _on_worker() -> bool:
    return isinstance(threading.current_thread(), Worker)


def _failure_of(call: Callable[[], object]) -> Exception | None:
    """What a sink raised; on a worker, as the failure that it is there."""
    try:
        call()
    except Exception as error:
        return error
    except BaseException as error:
        if not _on_worker():
            raise
        return _as_exception(error)
    return None


def _as_exception(error: BaseException) -> Exception:
    """What ends threads and programs, as the failure that it is on a worker."""
    if isinstance(error, Exception):
        return error
    failure = RuntimeError(f"sink raised {error!r}")
    failure.__cause__ = error
    return failure
