"""The peers that ours is held against: the least code that does the same job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

EventName = tuple[str, ...]
Values = Mapping[str, Any]
Handler = Callable[[EventName, Values, Values, Any], object]


class BareDispatcher:
    """One ``dict.get``, a miss test, a ``try`` around each handler."""

    __slots__ = ("failures", "handlers")

    def __init__(self) -> None:
        self.handlers: dict[EventName, list[tuple[Handler, Any]]] = {}
        self.failures: list[Exception] = []

    def attach(self, event: EventName, function: Handler) -> None:
        self.handlers.setdefault(event, []).append((function, None))

    def execute(self, event: EventName, measurements: Values, metadata: Values) -> None:
        handlers = self.handlers.get(event)
        if handlers is None:
            return
        for function, config in handlers:
            try:
                function(event, measurements, metadata, config)
            except Exception as error:
                self.failures.append(error)


class MinimalSpan:
    """Two events and their clock reads: no tree, no checks, and the names made beforehand."""

    __slots__ = ("bus", "metadata", "names", "started")

    def __init__(self, bus: BareDispatcher, names: Sequence[EventName], metadata: Values) -> None:
        self.bus = bus
        self.names = names
        self.metadata = metadata

    def __enter__(self) -> Self:
        self.started = now = time.monotonic_ns()
        measurements = {"monotonic_time": now, "system_time": time.time_ns()}
        self.bus.execute(self.names[0], measurements, self.metadata)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        now = time.monotonic_ns()
        measurements = {"duration": now - self.started, "monotonic_time": now}
        if error is None:
            self.bus.execute(self.names[1], measurements, self.metadata)
        else:
            self.bus.execute(self.names[2], measurements, {**self.metadata, "reason": error})
