"""Only the events that a function of the user wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from handlers.records import Sink
from telemetry import EventName, HandlerFunction

Predicate: TypeAlias = Callable[[EventName, Mapping[str, Any], Mapping[str, Any]], object]
"""``where(event, measurements, metadata)``: whether the event is wanted."""


def where(sink: Sink, predicate: Predicate) -> HandlerFunction:
    """Hand on the events for which ``predicate`` is true; what it raises is the handler's failure.

    Example:
        >>> handle = where(print, lambda event, measurements, metadata: measurements["loss"] > 1)
        >>> handle(("training", "step"), {"loss": 2.5}, {}, None)
        ('training', 'step') {'loss': 2.5} {} None
        >>> handle(("training", "step"), {"loss": 0.5}, {}, None)
    """

    def handle(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any
    ) -> None:
        if predicate(event, measurements, metadata):
            sink(event, measurements, metadata, config)

    return handle
