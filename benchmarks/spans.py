"""What timing a block costs: start and stop, with 0 and 1 handlers that do nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from benchmarks.bare import BareDispatcher, EventName, MinimalSpan, Values
from benchmarks.table import Bound, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry import Registry

PREFIX = ("custom_loss",)
NAMES = [(*PREFIX, end) for end in ("start", "stop", "exception")]
METADATA = {"model_id": "m", "data_count": 32}
MINIMAL = "minimal class, bare dispatcher"
OURS = "trainbus: with span(...)"
UNHEARD_LIMIT = 1.35


def run(rounds: int) -> None:
    for count in (0, 1):
        contenders = [make(count) for make in CONTENDERS]
        results = measure(contenders, rounds, THREAD_CPU_NS)
        bounds = [] if count else [Bound(OURS, MINIMAL, UNHEARD_LIMIT)]
        title = f"spans, {count} handler{'s' if count == 0 else ''} (thread CPU time)"
        print_table(title, results, MINIMAL, bounds)


def _minimal(count: int) -> Contender:
    return _with_bus(MINIMAL, "with Span(bus, names, metadata): pass", count, Span=MinimalSpan)


def _ours(count: int) -> Contender:
    registry = Registry()
    if count:
        registry.attach_many("listener", NAMES, _hear)
    names = {"prefix": PREFIX, "metadata": METADATA, "span": registry.span}
    return Contender(OURS, "with span(prefix, metadata): pass", names)


def _generator(count: int) -> Contender:
    statement = "with span(bus, names, metadata): pass"
    return _with_bus("@contextmanager, bare dispatcher", statement, count, span=generator_span)


def _opentelemetry(count: int) -> Contender:
    provider = TracerProvider(shutdown_on_exit=False)
    for _ in range(count):
        provider.add_span_processor(SpanProcessor())
    span = provider.get_tracer("benchmarks").start_as_current_span
    names = {"name": PREFIX[0], "metadata": METADATA, "span": span}
    statement = "with span(name, attributes=metadata): pass"
    return Contender("opentelemetry: no exporter", statement, names)


CONTENDERS = (_minimal, _ours, _generator, _opentelemetry)


@contextmanager
def generator_span(
    bus: BareDispatcher, names: Sequence[EventName], metadata: Values
) -> Iterator[None]:
    start, stop, exception = names
    started = time.monotonic_ns()
    bus.execute(start, {"monotonic_time": started, "system_time": time.time_ns()}, metadata)
    try:
        yield
    except BaseException as error:
        now = time.monotonic_ns()
        measurements = {"duration": now - started, "monotonic_time": now}
        bus.execute(exception, measurements, {**metadata, "reason": error})
        raise
    now = time.monotonic_ns()
    bus.execute(stop, {"duration": now - started, "monotonic_time": now}, metadata)


def _with_bus(label: str, statement: str, count: int, **names: Any) -> Contender:
    bus = BareDispatcher()
    for event in NAMES * count:
        bus.attach(event, _hear)
    values = {"bus": bus, "names": NAMES, "metadata": METADATA}
    return Contender(label, statement, {**values, **names})


def _hear(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    pass
