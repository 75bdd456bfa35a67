"""Spans: an operation's start, and its one stop or exception."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar, cast

from telemetry.ambient import restore
from telemetry.decorate import decorate
from telemetry.failure import stack_of
from telemetry.names import check_event
from telemetry.records import EventName
from telemetry.span_context import CURRENT, SpanContext, make_current, new_span_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.registry import Registry
    from telemetry.table import Table

Function = TypeVar("Function", bound="Callable[..., Any]")

CONTEXT_KEY: Final = "telemetry_span_context"
MAX_NAMES: Final = 4096
NOTHING: Final[Mapping[str, Any]] = {}
"""To merge where there is nothing; handed to nobody."""


class SpanNames(NamedTuple):
    """The three events of a span."""

    start: EventName
    stop: EventName
    exception: EventName


class Span:
    """One operation, as ``with``, ``async with``, decorator, or started and ended by hand.

    Made by `span` and `start_span`. Emits ``(*prefix, "start")`` and then exactly one of
    ``(*prefix, "stop")`` and ``(*prefix, "exception")``; the exception goes on unchanged. All
    times are integer nanoseconds.

    - start: ``monotonic_time``, ``system_time``, and the span's metadata;
    - stop: ``duration``, ``monotonic_time`` and what was measured (which cannot override those);
      the start's metadata and what was annotated (which wins);
    - exception: as stop, with ``kind`` (``"error"`` for an ``Exception``, ``"exit"`` for any other
      ``BaseException``), ``reason`` (the exception) and ``stacktrace``
      (``list[traceback.FrameSummary]``) in the metadata.

    The metadata has ``telemetry_span_context``, a `SpanContext`, unless the caller gave one. A
    span whose events nobody hears when it begins takes no place in the tree; its end is still
    offered to whoever listens by then.

    As a decorator it makes a span of each call, of functions, coroutine functions, generators and
    asynchronous generators. A generator that is closed early has stopped, not failed.

    Raises:
        TypeError: The prefix is no tuple of strings, or the metadata are no mapping.
        ValueError: The prefix is empty or has a bad segment.
        RuntimeError: The same span is entered twice.
    """

    __slots__ = (
        "_annotated",
        "_begun",
        "_measured",
        "_metadata",
        "_names",
        "_prefix",
        "_registry",
        "_started",
        "_token",
        "_unheard_by",
        "context",
    )

    context: SpanContext | None
    """Its place in the tree; None before it begins and if nobody hears it."""

    def __init__(
        self, registry: Registry, prefix: EventName, metadata: Mapping[str, Any] | None = None
    ) -> None:
        try:
            self._names = _names[prefix]
        except (KeyError, TypeError):
            self._names = _name(prefix)
        self._registry = registry
        self._prefix = prefix
        if type(metadata) is not dict:
            metadata = NOTHING if metadata is None else self._mapping("Metadata", metadata)
        self._metadata: Mapping[str, Any] = metadata
        self._measured: dict[str, Any] | None = None
        self._annotated: dict[str, Any] | None = None
        self._begun = False
        self._token: Token[SpanContext | None] | None = None
        self._unheard_by: Table | None = None
        self.context = None

    def measure(self, measurements: Mapping[str, Any] = NOTHING, /, **more: Any) -> None:
        """Add measurements to the stop or exception event.

        Raises:
            TypeError: They are no mapping.
        """
        self._measured = {
            **(self._measured or NOTHING),
            **self._mapping("Measurements", measurements),
            **more,
        }

    def annotate(self, metadata: Mapping[str, Any] = NOTHING, /, **more: Any) -> None:
        """Add metadata to the stop or exception event.

        Raises:
            TypeError: They are no mapping.
        """
        self._annotated = {
            **(self._annotated or NOTHING),
            **self._mapping("Metadata", metadata),
            **more,
        }

    def begin(self) -> None:
        """Start the clock and emit the start event. `start_span` and ``with`` do it for you."""
        if self._begun:
            raise RuntimeError(
                f"Span {self._prefix!r} has begun already, and a span is one operation. "
                "Make a new one with telemetry.span()."
            )
        self._begun = True
        table = self._registry._table  # noqa: SLF001 -- a call would cost what the look-up costs
        try:
            heard = table.spans[self._prefix]
        except KeyError:
            heard = table.resolve_span(self._prefix, self._names)
        if heard:
            self._place()
            self._started = now = time.monotonic_ns()
            try:
                self._registry.execute(
                    self._names[0],
                    {"monotonic_time": now, "system_time": time.time_ns()},
                    self._metadata,
                )
            except BaseException as error:
                self.exception(error)  # what some handler has seen begin, ends
                raise
        else:
            self._unheard_by = table
            self._started = time.monotonic_ns()

    def stop(self) -> None:
        """End the span. Does nothing if it has ended, or not begun."""
        started = self._take_start()
        if started is None or self._registry._table is self._unheard_by:  # noqa: SLF001 -- as above
            return
        if self._registry.enabled(self._names.stop):
            self._emit_end(self._names.stop, started, time.monotonic_ns(), NOTHING)

    def exception(self, error: BaseException) -> None:
        """End the span with an exception. Does nothing if it has ended, or not begun.

        Raises:
            TypeError: ``error`` is no exception.
        """
        if not isinstance(error, BaseException):
            raise TypeError(
                f"Span {self._prefix!r} can fail with an exception only, got {error!r} "
                f"({type(error).__name__})."
            )
        started = self._take_start()
        if started is not None and self._registry.enabled(self._names.exception):
            now = time.monotonic_ns()
            cause = {
                "kind": "error" if isinstance(error, Exception) else "exit",
                "reason": error,
                "stacktrace": stack_of(error.__traceback__),
            }
            self._emit_end(self._names.exception, started, now, cause)

    def __enter__(self) -> Self:
        self.begin()
        if self.context is not None:
            self._token = make_current(self.context)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            restore(CURRENT, self._token)
            self._token = None
        if error is None:
            self.stop()
        else:
            self.exception(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Function) -> Function:
        """Make a span of each call of ``function``."""
        wrapped = decorate(function, lambda: Span(self._registry, self._prefix, self._metadata))
        return cast("Function", wrapped)

    def __repr__(self) -> str:
        return f"<Span {'.'.join(self._prefix)}>"

    def _mapping(self, what: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{what} of span {self._prefix!r} must be a mapping, got {given!r} "
                f"({type(given).__name__}). Write {{'name': value}}."
            )
        return given

    def _take_start(self) -> int | None:
        # Deleting is atomic, so of two threads that end a span at once, one finds nothing.
        try:
            started = self._started
            del self._started
        except AttributeError:
            return None
        return started

    def _place(self) -> None:
        context = new_span_context()
        self._metadata = {CONTEXT_KEY: context, **self._metadata}
        given = self._metadata[CONTEXT_KEY]
        self.context = given if isinstance(given, SpanContext) else None

    def _emit_end(self, event: EventName, started: int, now: int, cause: Mapping[str, Any]) -> None:
        if self.context is None:
            self._place()
        self._registry.execute(
            event,
            {**(self._measured or NOTHING), "duration": now - started, "monotonic_time": now},
            {**self._metadata, **(self._annotated or NOTHING), **cause},
        )


_names: dict[EventName, SpanNames] = {}


def _name(prefix: EventName) -> SpanNames:
    check_event(prefix)
    names = SpanNames((*prefix, "start"), (*prefix, "stop"), (*prefix, "exception"))
    if len(_names) >= MAX_NAMES:
        _names.clear()
    _names[prefix] = names
    return names
