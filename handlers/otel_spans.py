"""Spans of the bus as spans of OpenTelemetry. Imported when the sink is made, not before."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator

from handlers.otel_attributes import (
    CAUSE,
    attributes_of,
    exception_attributes,
    nanoseconds,
    span_context_of,
)
from handlers.records import TimedEvent
from telemetry import EventName, SpanContext

MAX_OPEN: Final = 10_000
"""Spans that have begun and not ended; beyond that, the oldest is forgotten."""
UNFINISHED: Final = "trainbus.unfinished"

_SAMPLED: Final = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_NOT_AT_END: Final = ("duration", "monotonic_time", "system_time", *CAUSE)

Key = tuple[int, EventName]


class BusIds(IdGenerator):
    """Gives an OpenTelemetry span the ids that it has on the bus.

    So what one sink wrote can be found in another, and a span has its place in the tree although
    its parent was started in another process, or before the handler was attached.
    """

    def __init__(self) -> None:
        self.context = SpanContext(1, None, 1)

    def generate_span_id(self) -> int:
        """The id of the span that is about to be made."""
        return self.context.span_id

    def generate_trace_id(self) -> int:
        """That of its tree: 64 bits of the 128 that are possible."""
        return self.context.trace_id


class _Open(NamedTuple):
    span: trace.Span
    started: int


class Spans:
    """Begins and ends OpenTelemetry spans, with the times of the events.

    Args:
        provider: Makes them.
        ids: The provider's generator of ids, if it is one of ours.
    """

    def __init__(self, provider: trace.TracerProvider, ids: BusIds | None) -> None:
        self._tracer = provider.get_tracer("trainbus")
        self._ids = ids
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        # Of ended ones as well: a child may begin after its parent's end.
        self._contexts: OrderedDict[int, trace.SpanContext] = OrderedDict()

    def take(self, entry: TimedEvent, context: SpanContext, since: int) -> str:
        """Begin or end a span; "" or the reason why one was given up.

        Args:
            entry: An event that begins or ends one.
            context: The place of the span, as `span_of` gives it.
            since: When this process began, if by forking: a span that had begun by then is its
                parent's to end. Else 0.
        """
        key = (context.span_id, entry.event[:-1])
        if entry.event[-1] == "start":
            return self._start(key, context, entry)
        if since and entry.time_ns - (_duration(entry) or 0) < since:
            return "inherited"
        self._end(key, context, entry)
        return ""

    def end_all(self) -> None:
        """End what has begun, and say that it was not finished."""
        now = time.time_ns()
        while self._open:
            _, (span, started) = self._open.popitem(last=False)
            span.set_attribute(UNFINISHED, value=True)
            span.end(nanoseconds(max(now, started)))

    def _start(self, key: Key, context: SpanContext, entry: TimedEvent) -> str:
        given: Any = entry.measurements.get("system_time")
        # What cannot be sent is no time either.
        is_time = isinstance(given, int) and nanoseconds(given) == given
        started: int = given if is_time else entry.time_ns
        self._open[key] = self._begin(key, context, started, entry)
        if len(self._open) <= MAX_OPEN:
            return ""
        self._open.popitem(last=False)
        return "open_spans"

    def _begin(self, key: Key, context: SpanContext, started: int, entry: TimedEvent) -> _Open:
        if self._ids is not None:
            self._ids.context = context
        span = self._tracer.start_span(
            ".".join(key[1]),
            context=self._parent(context),
            start_time=nanoseconds(started),
            attributes=attributes_of(entry.metadata, without=CAUSE),
        )
        self._contexts[context.span_id] = span.get_span_context()
        if len(self._contexts) > MAX_OPEN:
            self._contexts.popitem(last=False)
        return _Open(span, started)

    def _parent(self, context: SpanContext) -> Context:
        """The parent's, which need not have been heard of where the ids are the bus's own."""
        if context.parent_id is None:
            return Context()
        parent = self._contexts.get(context.parent_id)
        if parent is None and self._ids is not None:
            parent = trace.SpanContext(
                context.trace_id, context.parent_id, is_remote=True, trace_flags=_SAMPLED
            )
        if parent is None:
            return Context()
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())

    def _end(self, key: Key, context: SpanContext, entry: TimedEvent) -> None:
        lasted = _duration(entry)
        begun = self._open.pop(key, None)
        if begun is None:  # it began before the handler was attached
            begun = self._begin(key, context, entry.time_ns - (lasted or 0), entry)
        span, started = begun
        ended = nanoseconds(entry.time_ns if lasted is None else started + lasted)
        span.set_attributes(_ending(entry))
        if entry.event[-1] == "exception":
            cause: Any = exception_attributes(entry.metadata)
            span.add_event("exception", cause, timestamp=ended)
            said = f"{cause['exception.type']}: {cause['exception.message']}"
            span.set_status(trace.Status(trace.StatusCode.ERROR, said))
        span.end(ended)


def span_of(entry: TimedEvent) -> SpanContext | None:
    """The place of the span that an event begins or ends; None if it does neither."""
    if len(entry.event) > 1 and entry.event[-1] in ("start", "stop", "exception"):
        return span_context_of(entry.metadata)
    return None


def _duration(entry: TimedEvent) -> int | None:
    given = entry.measurements.get("duration")
    # None is longer than the time since 1970.
    return given if isinstance(given, int) and 0 <= given <= max(entry.time_ns, 0) else None


def _ending(entry: TimedEvent) -> Any:
    return attributes_of(entry.measurements, entry.metadata, without=_NOT_AT_END)
