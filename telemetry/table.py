"""The immutable table of handlers that `execute` reads without a lock."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final, TypeAlias

from telemetry.names import check_event, matches
from telemetry.records import EventName, HandlerFunction, OnFailure, Pattern

Calls: TypeAlias = tuple[tuple[HandlerFunction, Any, "Handler"], ...]
"""The function and config of each handler of one event, in the order of attaching."""

MAX_RESOLVED: Final = 4096
"""Event names whose handlers a table remembers. More than this means made-up names."""


class Handler:
    """One attached handler. Compared by identity: an id can be used again later."""

    __slots__ = ("config", "function", "id", "on_failure", "patterns")

    def __init__(
        self,
        handler_id: Hashable,
        patterns: tuple[Pattern, ...],
        function: HandlerFunction,
        config: object,
        on_failure: OnFailure,
    ) -> None:
        self.id = handler_id
        self.patterns = patterns
        self.function = function
        self.config = config
        self.on_failure = on_failure

    def hears(self, event: EventName) -> bool:
        """Whether one of its patterns matches."""
        return any(matches(pattern, event) for pattern in self.patterns)


class Table:
    """The handlers at one moment, and what was worked out of them since.

    Attaching and detaching make a new table; only ``resolved`` and ``spans`` are ever written to,
    one whole entry at a time, by whoever first meets an event name or the prefix of a span.
    """

    __slots__ = ("handlers", "resolved", "spans")

    def __init__(self, handlers: tuple[Handler, ...] = ()) -> None:
        self.handlers = handlers
        self.resolved: dict[EventName, Calls] = {}
        self.spans: dict[EventName, bool] = {}

    def resolve(self, event: EventName) -> Calls:
        """Find the calls that an event needs, and remember them.

        Raises:
            TypeError: The event name is no tuple of strings.
            ValueError: It is empty or has a bad segment.
        """
        check_event(event)
        calls = tuple((h.function, h.config, h) for h in self.handlers if h.hears(event))
        if len(self.resolved) >= MAX_RESOLVED:
            self.resolved.clear()
        self.resolved[event] = calls
        return calls

    def resolve_span(self, prefix: EventName, names: Iterable[EventName]) -> bool:
        """Find out whether anybody hears one of a span's events; remember it by its prefix."""
        heard = any(self.resolve(name) for name in names)
        if len(self.spans) >= MAX_RESOLVED:
            self.spans.clear()
        self.spans[prefix] = heard
        return heard

    def by_id(self, handler_id: Hashable) -> Handler | None:
        """The handler with this id."""
        return next((h for h in self.handlers if h.id == handler_id), None)
