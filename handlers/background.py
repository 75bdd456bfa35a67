"""Delivery on a worker thread, behind a bounded queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

from handlers.clock import EVENT_TIME
from handlers.device import needs_device
from handlers.event_queue import Entry, EventQueue
from handlers.forks import renew_in_children
from handlers.lifecycle import close_sink
from handlers.losses import Losses
from handlers.records import Eager, Flushable, Overflow, Sink, Site
from telemetry import Attachment, EventName
from telemetry.values import to_python_many


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
        self._starting = threading.RLock()
        self._thread: Worker | None = None
        self._abandoned = False
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
        entry = Entry(time.time_ns(), event, dict(measurements), dict(metadata))
        may_wait = self._blocks and not isinstance(threading.current_thread(), Worker)
        outcome = self._queue.put(entry, may_wait=may_wait)
        # After a close that hung, the sink would hold the emitter as well.
        if outcome == "dropped" or (outcome == "closed" and self._abandoned):
            self._losses.add(1, "the queue is full")
        elif outcome == "closed":
            self._call_sink(entry, *to_python_many([entry.measurements, entry.metadata]))
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
            itself.

        Raises:
            Exception: What the sink's own ``flush`` raised.
        """
        if self._queue.closed:
            return not self._abandoned
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
        # From here on no worker is started; one that was is seen.
        with self._starting:
            thread = self._thread
        if thread is None:
            self._run()
        elif thread is not threading.current_thread():  # the worker ends itself after this event
            thread.join(self._flush_timeout)
            if thread.is_alive():
                self._abandoned = True
                self._losses.add(self._queue.discard(), f"no end within {self._flush_timeout} s")
                self._losses.announce_rest()

    def after_fork(self) -> None:
        """In a forked child: without the parent's thread and what waits for it."""
        self._starting = threading.RLock()
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
        queue = self._queue
        while (batch := queue.take()) is not None:
            self._deliver(batch)
            for future in queue.due_flushes():
                self._answer(future)
            self._losses.announce_if_due()
        self._losses.announce_rest()
        close_sink(self._site, self._sink)
        for future in queue.due_flushes():
            future.set_result(None)

    def _deliver(self, batch: list[Entry]) -> None:
        size = len(batch)
        mappings = [entry.measurements for entry in batch] + [entry.metadata for entry in batch]
        values = to_python_many(mappings)
        for entry, numbers, metadata in zip(batch, values[:size], values[size:], strict=True):
            error: Exception | None = None
            try:
                self._call_sink(entry, numbers, metadata)
            except Exception as raised:
                error = raised
            # Discarded meanwhile, by a close that waited long enough or by a fork.
            if not self._queue.done():
                return
            if error is not None:
                self._fail(entry.event, error)

    def _call_sink(
        self, entry: Entry, measurements: dict[str, Any], metadata: dict[str, Any]
    ) -> None:
        token = EVENT_TIME.set(entry.time_ns)
        try:
            self._deliver_one(entry.event, measurements, metadata, None)
        finally:
            EVENT_TIME.reset(token)

    def _fail(self, event: EventName, error: Exception) -> None:
        assert self._attachment is not None  # noqa: S101 -- no worker runs before start()
        self._attachment.fail(event, error)
        if self._stop_on_failure:
            self._losses.add(self._queue.discard(), "they waited behind one that failed")

    def _answer(self, future: Future[None]) -> None:
        try:
            self._flush_sink()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def _flush_sink(self) -> None:
        if isinstance(self._sink, Flushable):
            self._sink.flush()
