"""The sink of OpenTelemetry. Imported when it is made, not before."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

from handlers.clock import event_time_ns
from handlers.each import take_each
from handlers.forks import renew_in_children
from handlers.losses import is_announcement
from handlers.otel_instruments import Instruments
from handlers.otel_logs import Logs
from handlers.otel_spans import Spans, span_of
from handlers.patience import PATIENCE
from handlers.records import Site, TimedEvent
from handlers.refusals import Refusals, Tally
from telemetry import EventName, Pattern
from telemetry.metrics import Reporter

DISABLED: Final = "OTEL_SDK_DISABLED"
FLUSH_MILLIS: Final = 3000
REASONS: Final = {
    "not_finite": "OpenTelemetry takes no NaN and no infinity in a metric",
    "negative": "OpenTelemetry takes no negative value in a histogram",
    "name_taken": "in OpenTelemetry their name is that of another metric, kind or set of tags",
    "max_series": "more time series than max_series allows",
    "open_spans": "more spans are open than are kept; one is sent if it ends",
    "inherited": "spans that began before a fork are the parent's to end",
    "forked": "what a forked child sends through the parent's providers could wait for ever",
    "closed": "they came after the handler's end",
}


class Outlet(Protocol):
    """Where it goes: providers, and what sends what they collect."""

    tracer_provider: Any
    meter_provider: Any
    logger_provider: Any
    ids: Any
    merges: bool
    """Whether a gauge may be given the last of several values, and a counter their sum."""
    shown: str

    @property
    def pending(self) -> bool:
        """Whether something is waiting to be sent."""

    def kept(self) -> int:
        """How much of what came before the last `begin_batch` is waiting."""

    def begin_batch(self) -> None:
        """Note how much was waiting before some events."""

    def forget_batch(self) -> None:
        """Forget what these events have added: who waits for the worker counts them."""

    def heard(self) -> None:
        """Note that there are new metrics."""

    def send_if_due(self) -> bool:
        """Send what waits, if it is time to; whether nothing was given up."""

    def send(self) -> bool:
        """Send what waits, as far as that is possible now; whether all of it was."""

    def close(self) -> None:
        """Send what waits, for the last time."""


class GivenProviders:
    """Providers of the program, which sends what they collect, and shuts them down.

    Args:
        tracer_provider: Gets the spans; None for none.
        meter_provider: Gets the metrics.
        logger_provider: Gets the log records.
    """

    ids = None
    merges = False  # a view of the program's may look at each
    pending = False
    shown = "where the program's own providers send it"

    def __init__(self, tracer_provider: Any, meter_provider: Any, logger_provider: Any) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.logger_provider = logger_provider

    def kept(self) -> int:
        """Nothing waits here."""
        return 0

    def begin_batch(self) -> None:
        """Nothing waits here."""

    def forget_batch(self) -> None:
        """Nothing waits here."""

    def heard(self) -> None:
        """Nothing: the program's reader asks for metrics by itself."""

    def send_if_due(self) -> bool:
        """Nothing: the program's processors send by themselves."""
        return True

    def send(self) -> bool:
        """Let them send what they have."""
        with ExitStack() as all_of_them:
            for provider in (self.logger_provider, self.meter_provider, self.tracer_provider):
                if hasattr(provider, "force_flush"):
                    all_of_them.callback(provider.force_flush, FLUSH_MILLIS)
        return True

    def close(self) -> None:
        """Let them send what they have."""
        self.send()


class OpenTelemetry:
    """A sink that makes spans, metrics and log records.

    Args:
        site: Where it is attached.
        reporter: What becomes a metric.
        logs: Which events become log records; None for the default.
        max_series: How many sets of values of its tags a metric may have.
        outlet: Where it goes.
        renew: Makes the same anew in a forked child; None if that cannot be.
    """

    delivery = "background"
    idle_after = 1.0

    def __init__(
        self,
        site: Site,
        *,
        reporter: Reporter,
        logs: tuple[Pattern, ...] | None,
        max_series: int,
        outlet: Outlet,
        renew: Callable[[], Outlet] | None,
    ) -> None:
        self._reporter = reporter
        self._patterns = logs
        self._max_series = max_series
        self._renew = renew
        self._refusals = Refusals(site, REASONS)
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._over = ""  # the reason why nothing is taken any more
        self._is_stale = False  # whether the outlet is the parent's
        self._since = 0  # when this process was forked
        self._open(outlet)
        renew_in_children(self)

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Take one event."""
        entry = TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))
        self.deliver_many([entry])

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Take what came; send what is enough, or waits long enough."""
        if self._over:
            self._refusals.refuse(self._over, batch)
            return
        tally = Tally()
        with self._lock:
            self._reopen_in_child()
            self._outlet.begin_batch()
            error = take_each(batch, lambda entry: self._take(entry, tally))
            if self._instruments is not None:
                self._instruments.settle()
        self._refusals.add(tally)
        self._send_if_due()
        if error is not None:
            raise error

    def idle(self) -> bool:
        """Send what waits long enough; whether there is something left."""
        if self._over or self._is_stale:
            return False
        self._outlet.begin_batch()  # what waits now is of no batch that somebody counts
        self._send_if_due()
        return self._outlet.pending

    def kept(self) -> int:
        """How much waits that came before the batch which is being delivered."""
        return self._outlet.kept()

    def flush(self) -> bool:
        """Send what waits; whether all of it was. A span that has not ended is not sent."""
        if self._over or self._is_stale:
            return True
        with self._sending:
            self._outlet.begin_batch()
            return self._outlet.send()

    def where_to_look(self) -> str:
        """The endpoint, or that the program has providers of its own."""
        return self._outlet.shown

    def why_silent(self) -> str:
        """That the SDK is switched off, if it is."""
        is_off = os.environ.get(DISABLED, "").strip().lower() == "true"
        return f"{DISABLED} is true" if is_off else ""

    def close(self) -> None:
        """End the spans that have begun, and send what waits."""
        over, self._over = self._over, self._over or "closed"
        try:
            if not (over or self._is_stale):
                with self._lock:
                    if self._spans is not None:
                        self._spans.end_all()
                with self._sending:
                    self._outlet.begin_batch()
                    self._outlet.close()
        finally:
            self._refusals.announce_rest()

    def after_fork(self) -> None:
        """In a child: nothing of the parent's is sent or waited for."""
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        if self._renew is None:
            self._over = self._over or "forked"
        elif not self._over:
            self._since = time.time_ns()
            self._is_stale = True

    def _reopen_in_child(self) -> None:
        """Only when there is something to send: most children have nothing to say."""
        if self._is_stale and self._renew is not None:
            self._open(self._renew())
            self._is_stale = False

    def _open(self, outlet: Outlet) -> None:
        tracers, meters = outlet.tracer_provider, outlet.meter_provider
        loggers = outlet.logger_provider
        self._outlet = outlet
        self._spans = None if tracers is None else Spans(tracers, outlet.ids)
        if meters is None:
            self._instruments = None
        else:
            self._instruments = Instruments(meters, self._max_series, merges=outlet.merges)
        self._logs = None if loggers is None else Logs(loggers, self._patterns)

    def _take(self, entry: TimedEvent, tally: Tally) -> None:
        span = span_of(entry)
        if span is not None and self._spans is not None:
            tally.note_of(entry.event, self._spans.take(entry, span, self._since))
        samples = self._reporter.sampled(entry.event, entry.measurements, entry.metadata)
        if samples and self._instruments is not None:
            for sample in samples:
                if refusal := self._instruments.record(sample):
                    tally.note_of(entry.event, refusal, sample.name)
            if not is_announcement(entry.event):  # which is no reason to send anything
                self._outlet.heard()
        if self._logs is not None:
            self._logs.take(entry, is_span=span is not None, is_metric=bool(samples))

    def _send_if_due(self) -> None:
        # Where emitters' threads deliver, one of them sends, and the others do not wait for it.
        if not self._sending.acquire(blocking=False):
            return
        done = False
        try:
            done = self._outlet.send_if_due()
        finally:
            self._sending.release()
            if not done and PATIENCE.get() is not None:
                self._outlet.forget_batch()
