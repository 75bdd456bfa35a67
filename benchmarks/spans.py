"""What timing a block costs: start and stop, with 0 and 1 handlers that do nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from blinker import Signal
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from pyee import EventEmitter

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


def _blinker(count: int) -> Contender:
    return _over("blinker: two sends", BlinkerBus(count))


def _pyee(count: int) -> Contender:
    return _over("pyee: two emits", PyeeBus(count))


def _logging(count: int) -> Contender:
    return _over(f"logging: two infos, {'NullHandler' if count else 'disabled'}", LoggingBus(count))


def _over(label: str, bus: Any) -> Contender:
    # They have no spans: the minimal class emits through them.
    names = {"Span": MinimalSpan, "bus": bus, "names": NAMES, "metadata": METADATA}
    return Contender(label, "with Span(bus, names, metadata): pass", names)


CONTENDERS = (_minimal, _ours, _generator, _blinker, _pyee, _logging, _opentelemetry)


class BlinkerBus:
    def __init__(self, count: int) -> None:
        self.signals = {name: Signal() for name in NAMES}
        self.receivers = [partial(_receive, number) for number in range(count)]
        for signal in self.signals.values():
            for receiver in self.receivers:
                signal.connect(receiver, weak=False)

    def execute(self, event: EventName, measurements: Values, metadata: Values) -> None:
        self.signals[event].send(self, measurements=measurements, metadata=metadata)


class PyeeBus:
    def __init__(self, count: int) -> None:
        self.emitter = EventEmitter()
        self.dotted = {name: ".".join(name) for name in NAMES}
        for number in range(count):
            for name in self.dotted.values():
                self.emitter.on(name, partial(_receive, number))

    def execute(self, event: EventName, measurements: Values, metadata: Values) -> None:
        self.emitter.emit(self.dotted[event], event, measurements=measurements, metadata=metadata)


class LoggingBus:
    def __init__(self, count: int) -> None:
        self.dotted = {name: ".".join(name) for name in NAMES}
        self.logger = logging.getLogger(f"benchmarks.spans.{count}")
        self.logger.setLevel(logging.INFO if count else logging.WARNING)
        self.logger.propagate = False
        for _ in range(count):
            self.logger.addHandler(logging.NullHandler())

    def execute(self, event: EventName, measurements: Values, metadata: Values) -> None:
        self.logger.info("%s %s %s", self.dotted[event], measurements, metadata)


def _receive(number: int, sender: Any, measurements: Any, metadata: Any) -> None:
    pass


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
