"""What one event costs its emitter, with 0, 1 and 3 handlers that do nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from blinker import Signal
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from pyee import EventEmitter

from benchmarks.bare import BareDispatcher, Handler
from benchmarks.table import Bound, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry import EventName, Registry

EVENT: EventName = ("training", "step")
NAME = "training.step"
VALUES = {
    "event": EVENT,
    "measurements": {"loss": 2.5432, "lr": 0.0002},
    "metadata": {"step": 1, "total_steps": 1000},
}
BARE = "bare dispatcher"
EXACT = "trainbus, exact name"
WILDCARD = "trainbus, wildcard"
BLINKER = "blinker: Signal.send"
LIMITS = {0: 1.25, 1: 1.35, 3: 1.35}
BLINKER_LIMIT = 0.2


def run(rounds: int) -> None:
    for count in LIMITS:
        contenders = [make(count) for make in CONTENDERS]
        title = f"dispatch, {count} handler{'' if count == 1 else 's'}"
        results = measure(contenders, rounds, THREAD_CPU_NS)
        print_table(f"{title} (thread CPU time)", results, BARE, _bounds(count))


def _bounds(count: int) -> list[Bound]:
    bounds = [Bound(name, BARE, LIMITS[count]) for name in (EXACT, WILDCARD)]
    return [*bounds, Bound(EXACT, BLINKER, BLINKER_LIMIT)] if count == 1 else bounds


def _bare(count: int) -> Contender:
    dispatcher = BareDispatcher()
    for function in _functions(count):
        dispatcher.attach(EVENT, function)
    return _emitting(BARE, dispatcher.execute)


def _exact(count: int) -> Contender:
    return _ours(EXACT, EVENT, count)


def _wildcard(count: int) -> Contender:
    return _ours(WILDCARD, (EVENT[0], "*"), count)


def _ours(name: str, pattern: tuple[str, ...], count: int) -> Contender:
    registry = Registry()
    for number, function in enumerate(_functions(count)):
        registry.attach(number, pattern, function)
    return _emitting(name, registry.execute)


def _emitting(name: str, execute: Callable[..., None]) -> Contender:
    # Both are bound methods, looked up under a global name.
    names = {**VALUES, "execute": execute}
    return Contender(name, "execute(event, measurements, metadata)", names)


def _functions(count: int) -> list[Handler]:
    def new() -> Handler:
        def hear(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
            pass

        return hear

    return [new() for _ in range(count)]


def _blinker(count: int) -> Contender:
    signal = Signal()
    receivers = [_receiver() for _ in range(count)]
    for receiver in receivers:
        signal.connect(receiver)
    # blinker holds its receivers weakly, so the contender keeps them.
    names = {**VALUES, "send": signal.send, "receivers": receivers}
    statement = "send(event, measurements=measurements, metadata=metadata)"
    return Contender(BLINKER, statement, names)


def _receiver() -> Callable[..., None]:
    def receive(sender: Any, measurements: Any, metadata: Any) -> None:
        pass

    return receive


def _pyee(count: int) -> Contender:
    emitter = EventEmitter()
    for _ in range(count):
        emitter.add_listener(NAME, _listener())
    names = {**VALUES, "emit": emitter.emit, "name": NAME}
    return Contender("pyee: emit", "emit(name, measurements, metadata)", names)


def _listener() -> Callable[..., None]:
    def listen(measurements: Any, metadata: Any) -> None:
        pass

    return listen


def _logging(count: int) -> Contender:
    logger = logging.getLogger(f"benchmarks.dispatch.{count}")
    logger.propagate = False
    logger.setLevel(logging.INFO if count else logging.WARNING)
    for _ in range(count):
        logger.addHandler(logging.NullHandler())
    label = "logging: info, NullHandler" if count else "logging: info, disabled"
    names = {**VALUES, "info": logger.info}
    return Contender(label, "info('%s %s %s', event, measurements, metadata)", names)


def _opentelemetry_span(count: int) -> Contender:
    provider = TracerProvider(shutdown_on_exit=False)
    for _ in range(count):
        provider.add_span_processor(SpanProcessor())
    names = {**VALUES, "start": provider.get_tracer("benchmarks").start_span, "name": NAME}
    statement = "start(name, attributes=metadata).end()"
    return Contender("opentelemetry: a span, no-op processors", statement, names)


def _opentelemetry_event(count: int) -> Contender:
    # Events go to no handler of their own: the number of them makes no difference here.
    del count
    span = TracerProvider(shutdown_on_exit=False).get_tracer("benchmarks").start_span("run")
    names = {**VALUES, "add_event": span.add_event, "name": NAME}
    return Contender("opentelemetry: an event on a span", "add_event(name, measurements)", names)


CONTENDERS = (
    _bare,
    _exact,
    _wildcard,
    _blinker,
    _pyee,
    _logging,
    _opentelemetry_event,
    _opentelemetry_span,
)
