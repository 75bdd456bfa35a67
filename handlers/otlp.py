"""Telemetry to an OTLP endpoint, by the vendor's exporters on our worker.

The SDK's own batch processors would need three more threads, which retry by clocks of their own
and tell nobody what they dropped. Imported when the sink is made, not before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs import ReadableLogRecord as ReadableLog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from handlers.errors import CredentialsError, DeliveryError
from handlers.losses import OVERFLOW, Losses
from handlers.otel_spans import BusIds
from handlers.otlp_session import (
    EXPORTING,
    LOGGERS,
    RequestFailedError,
    Session,
    quiet_exporters,
)
from handlers.otlp_settings import Settings
from handlers.patience import HURRY, PATIENCE, Patience, given_up
from handlers.records import Site
from handlers.retrying import Retrying

BATCH: Final = 512
"""Spans or log records that are sent without waiting for the interval, as in the SDK."""
MOST: Final = 4 * BATCH
"""Of those that wait for an endpoint; for more, the oldest are lost, or the worker waits too."""

_ANNOUNCEMENT: Final = ".".join(OVERFLOW)
_REFUSES_DATA: Final = (400, 413)
_ELSEWHERE: Final = (*range(300, 400), 405)
_EXPORTERS: Final[dict[str, tuple[Any, Any]]] = {
    "traces": (OTLPSpanExporter, ExportTraceServiceResponse),
    "metrics": (OTLPMetricExporter, ExportMetricsServiceResponse),
    "logs": (OTLPLogExporter, ExportLogsServiceResponse),
}


class _KeepSpans(SpanProcessor):
    def __init__(self, kept: list[ReadableSpan]) -> None:
        self._kept = kept

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._kept.append(span)


class _KeepLogs(LogRecordProcessor):
    def __init__(self, kept: list[ReadableLog], resource: Resource) -> None:
        self._kept = kept
        self._resource = resource

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self._kept.append(
            ReadableLog(
                log_record.log_record,
                self._resource,
                log_record.instrumentation_scope,
                log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """Nothing: `Pipeline` sends what is kept."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing: `Pipeline` sends what is kept."""
        return True


class Pipeline:
    """Providers of the SDK, and exporters for what they collect.

    Metrics are cumulative, so that one export that fails loses nothing. Each signal has an endpoint
    that can be down by itself: the worker waits only while none is known to take anything, so that
    events wait in its queue then; else the oldest are lost of what waits for the one that is down.

    What announces losses is sent with the rest. It is no reason to export metrics, and no loss.

    Args:
        site: Whose.
        settings: Where to, for each signal that is wanted.

    Attributes:
        merges: That there is no view, so nobody looks at each value of a gauge or a counter.
        shown: The endpoints.
        tracer_provider: None if no traces are wanted; the others likewise.
    """

    merges = True

    def __init__(self, site: Site, settings: Settings) -> None:
        self._site = site
        self._settings = settings
        self._kept: dict[str, list[Any]] = {"traces": [], "logs": []}
        self._before = {"traces": 0, "logs": 0}
        self._unsent = 0  # events whose metrics nobody has; those that count
        self._unsent_before = 0
        self._reader = InMemoryMetricReader()
        self._due = time.monotonic() + settings.interval
        self._refused = False
        self._losses = Losses(site, "not_sent")
        self._refusals = Losses(site, "refused")
        endpoints = settings.endpoints
        self.shown = settings.secrets.redact(", ".join(dict.fromkeys(endpoints.values())))
        self._retrying = {
            signal: Retrying(
                site,
                settings.secrets.redact(url),
                passes=_passes,
                losses=self._losses,
                secrets=settings.secrets,
            )
            for signal, url in settings.endpoints.items()
        }
        self._working: set[str] = set()  # signals whose endpoint took what came last
        settings.secrets.hide_in_logs(LOGGERS)
        self._provide()
        quiet_exporters()
        self._sessions = {
            signal: Session(_EXPORTERS[signal][1], settings.secrets)
            for signal in settings.endpoints
        }
        self._exporters = {
            signal: _EXPORTERS[signal][0](
                endpoint=url,
                headers=dict(settings.headers),
                timeout=settings.timeout,
                session=self._sessions[signal],
            )
            for signal, url in settings.endpoints.items()
        }

    def _provide(self) -> None:
        wanted = self._settings.endpoints
        resource = Resource.create({**self._settings.resource, "process.pid": os.getpid()})
        self.ids = BusIds()
        self.tracer_provider: TracerProvider | None = None
        self.meter_provider: MeterProvider | None = None
        self.logger_provider: LoggerProvider | None = None
        if "traces" in wanted:
            self.tracer_provider = TracerProvider(
                resource=resource, shutdown_on_exit=False, id_generator=self.ids
            )
            self.tracer_provider.add_span_processor(_KeepSpans(self._kept["traces"]))
        if "metrics" in wanted:
            self.meter_provider = MeterProvider(
                [self._reader], resource=resource, shutdown_on_exit=False
            )
        if "logs" in wanted:
            self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
            self.logger_provider.add_log_record_processor(_KeepLogs(self._kept["logs"], resource))

    @property
    def pending(self) -> bool:
        """Whether something is waiting to be sent."""
        return self._unsent > 0 or any(self._kept.values())

    def kept(self) -> int:
        """How much of what came before the last `begin_batch` is waiting."""
        kept = sum(_countable(self._kept[signal][:count]) for signal, count in self._before.items())
        return kept + min(self._unsent, self._unsent_before)

    def begin_batch(self) -> None:
        """Note how much was waiting before some events."""
        self._before = {signal: len(kept) for signal, kept in self._kept.items()}
        self._unsent_before = self._unsent

    def forget_batch(self) -> None:
        """Forget what these events have added: who waits for the worker counts them."""
        for signal, count in self._before.items():
            del self._kept[signal][count:]
        self._unsent = min(self._unsent, self._unsent_before)

    def heard(self) -> None:
        """Note that there are new metrics."""
        self._unsent += 1

    def send_if_due(self) -> bool:
        """Send what waits, if it is enough or waits long enough; whether nothing was given up."""
        enough = any(len(kept) >= BATCH for kept in self._kept.values())
        if enough or (self.pending and time.monotonic() >= self._due):
            self.send()
        patience = PATIENCE.get()
        while patience is not None and self._is_stuck():
            if not self._wait(patience):
                return False
            self.send()
        self._make_room()
        return not given_up()

    def send(self) -> bool:
        """Send what waits, as far as that is possible now; whether all of it was."""
        self._due = time.monotonic() + self._settings.interval
        self._refused = True  # if it raises
        for signal in self._settings.endpoints:
            if signal == "metrics":
                self._send_metrics()
            else:
                self._send_kept(signal)
        self._refused = False
        self._refusals.announce_if_due()
        return not self.pending

    def close(self) -> None:
        """Send what waits, for the last time; for as long as the worker has patience."""
        patience = PATIENCE.get()
        try:
            while not (self._refused or self.send()):
                if patience is None or not self._wait(patience):
                    break
        finally:
            kept = sum(map(_countable, self._kept.values())) + self._unsent
            self._losses.add(
                0 if given_up() else kept, "the endpoint did not take them before the end"
            )
            for exporter in self._exporters.values():
                exporter.shutdown()
            self._losses.announce_rest()
            self._refusals.announce_rest()

    def _is_stuck(self) -> bool:
        """Whether no more can be kept, and no endpoint is known to take anything."""
        return not self._working and any(len(kept) >= MOST for kept in self._kept.values())

    def _wait(self, patience: Patience) -> bool:
        """Wait until an endpoint that is down can be asked again; False says that it is over."""
        down = ((each.left, each.asked) for each in self._retrying.values() if each.is_down)
        left, asked = min(down, default=(0.0, 0.0))
        return patience.wait(max(left, HURRY), asked)

    def _make_room(self) -> None:
        for signal, kept in self._kept.items():
            if len(kept) <= MOST or not self._retrying[signal].is_down:
                continue
            surplus = kept[: len(kept) - MOST]
            del kept[: len(surplus)]
            self._losses.add(_countable(surplus), "the endpoint does not answer")

    def _send_kept(self, signal: str) -> None:
        kept = self._kept[signal]
        while kept:
            batch = kept[:BATCH]
            if not self._attempt(signal, partial(list, batch), _countable(batch)):
                return
            del kept[: len(batch)]
            self._before[signal] = max(0, self._before[signal] - len(batch))

    def _send_metrics(self) -> None:
        unsent = self._unsent
        # Collected anew for each attempt: the values of then are the best that there are.
        if unsent and self._attempt("metrics", self._reader.get_metrics_data, unsent):
            self._unsent -= unsent

    def _attempt(self, signal: str, collect: Callable[[], Any], size: int) -> bool:
        """Send something once; whether that is done with, be it that it was refused."""
        try:
            done = self._retrying[signal].once(partial(self._send, signal, collect, size))
        except RequestFailedError as failure:
            raise self._error(signal, failure) from None
        (self._working.add if done else self._working.discard)(signal)
        return done

    def _send(self, signal: str, collect: Callable[[], Any], size: int) -> None:
        session = self._sessions[signal]
        session.forget()
        data = collect()
        succeeded = data is None or self._export(signal, data)
        if session.failure is not None and session.failure.status in _REFUSES_DATA:
            self._refusals.add(size, session.failure)
        elif session.failure is not None:
            raise session.failure
        elif session.rejected:
            # Of metrics, points are rejected, of which an event can make several.
            points = signal == "metrics"
            self._refusals.add(
                session.rejected if points else min(session.rejected, size), session.because
            )
        elif not succeeded:
            self._refusals.add(size, "they could not be encoded")

    def _export(self, signal: str, data: Any) -> bool:
        exporting = EXPORTING.set(True)
        context = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            return bool(self._exporters[signal].export(data).name == "SUCCESS")
        finally:
            detach(context)
            EXPORTING.reset(exporting)

    def _error(self, signal: str, failure: RequestFailedError) -> DeliveryError:
        place = self._settings.secrets.redact(self._settings.endpoints[signal])
        about = f"Handler {self._site.handler_id!r}: {place} answered {failure}"
        if failure.status in (401, 403):
            return CredentialsError(
                f"{about}. Give what it accepts: headers={{'authorization': ...}}, or the variable "
                "OTEL_EXPORTER_OTLP_HEADERS."
            )
        if failure.status in _ELSEWHERE:
            return DeliveryError(
                f"{about}. That is no OTLP endpoint: check the address in the option endpoint, or "
                "in the variable OTEL_EXPORTER_OTLP_ENDPOINT."
            )
        return DeliveryError(
            f"{about}. If it takes no {signal}, leave them out: signals=[...] with those that it "
            "takes."
        )


def _countable(kept: Iterable[Any]) -> int:
    """How many spans or log records count when they are lost."""
    return sum(_name_of(item) != _ANNOUNCEMENT for item in kept)


def _name_of(item: Any) -> str | None:
    return item.log_record.event_name if isinstance(item, ReadableLog) else item.name


def _passes(error: Exception) -> float | None:
    if isinstance(error, RequestFailedError) and error.passes:
        return error.retry_after
    return None
