"""The span of an operation that a collector times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from telemetry.ambient import ambient_metadata
from telemetry.collector.history import MetricsHistory
from telemetry.decorate import decorate
from telemetry.records import EventName
from telemetry.registry import Registry
from telemetry.runs.identity import with_own_attempt
from telemetry.spans import NOTHING, Span, SpanNames

Function = TypeVar("Function", bound=Callable[..., Any])

PREFIX: Final[EventName] = ("performance", "operation")
NAMES: Final = SpanNames((*PREFIX, "start"), (*PREFIX, "stop"), (*PREFIX, "exception"))


class Operation(Span):
    """A span ``performance.operation`` whose duration a history keeps: see `time_operation`.

    One that fails is on the bus only. What is overridden here does what `Span` does, in fewer
    calls where nobody listens: a loop has many operations, and the history has its price too.
    """

    __slots__ = ("_history",)

    def __init__(
        self, registry: Registry, metadata: Mapping[str, Any], history: MetricsHistory
    ) -> None:
        self._names = NAMES
        self._registry = registry
        self._prefix = PREFIX
        self._metadata = metadata
        self._measured = self._annotated = None
        self._begun = False
        self._token = self._unheard_by = self.context = None
        self._history = history

    def stop(self) -> None:
        """End it. Does nothing if it has ended, or not begun."""
        started = self._take_start()
        if started is None:
            return
        now = monotonic_ns()
        history = self._history
        history.count_one()
        history.keep((now, self._metadata, started, history.epoch))
        if self._registry._table is not self._unheard_by and self._registry.enabled(NAMES.stop):  # noqa: SLF001 -- as in Span
            self._emit_end(NAMES.stop, started, now, NOTHING)

    def __enter__(self) -> Self:
        table = self._registry._table  # noqa: SLF001 -- as in Span
        try:
            heard = table.spans[PREFIX]
        except KeyError:
            heard = True  # for all that is known yet
        if heard or self._begun:
            return Span.__enter__(self)
        self._begun = True
        self._unheard_by = table
        self._started = monotonic_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None or self._registry._table is not self._unheard_by:  # noqa: SLF001 -- as in Span
            Span.__exit__(self, kind, error, traceback)
            return
        try:
            started = self._started
            del self._started
        except AttributeError:
            return  # ended by hand
        now = monotonic_ns()
        history = self._history
        history.count_one()
        history.keep((now, self._metadata, started, history.epoch))

    def _place(self) -> None:
        if ambient_metadata() is not None:  # a call less, where there is no run around
            self._metadata = with_own_attempt(self._metadata)
        Span._place(self)  # noqa: SLF001 -- super() costs a tenth of a microsecond

    def __call__(self, function: Function) -> Function:
        """Time each call of ``function``."""
        decorated: Function = decorate(
            function, lambda: Operation(self._registry, self._metadata, self._history)
        )
        return decorated
