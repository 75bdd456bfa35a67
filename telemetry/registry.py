"""The registry: who hears what, and the dispatch of events to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any

from telemetry import signals
from telemetry.ambient import ambient_metadata, context
from telemetry.arguments import check_mapping
from telemetry.attachment import Attachment, Lease
from telemetry.checks import check_function, check_handler_id, check_on_failure, check_patterns
from telemetry.errors import HandlerExistsError, HandlerNotFoundError
from telemetry.failure import announce
from telemetry.fork import renew_in_child
from telemetry.names import check_prefix, overlaps
from telemetry.records import EventName, HandlerFunction, HandlerInfo, OnFailure, Pattern
from telemetry.spans import Span
from telemetry.table import Handler, Table


class Registry:
    """An isolated bus. The functions of `telemetry` are the methods of a default one.

    Example:
        >>> bus = Registry()
        >>> heard = bus.attach("printer", ("training", "*"), lambda event, m, md, config: print(m))
        >>> bus.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        {'loss': 2.5}
        >>> bus.detach("printer")
    """

    context = context

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._table = Table()
        self._resolved = self._table.resolved
        renew_in_child(self)

    def execute(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Call the handlers of an event, in the caller's thread, in the order they were attached.

        What a handler raises stays inside: see `attach_many`. An event that nobody hears costs a
        dictionary look-up.

        Args:
            event: A tuple of strings, such as ``("training", "step")``.
            measurements: Numbers, 0-d arrays or tensors of any framework, or 1-d ones for
                per-group detail. Handed over as they are: do not write to them afterwards.
            metadata: Anything that says what was measured. Merged over the ambient `context`.

        Raises:
            TypeError: The event is no tuple of strings; or somebody listens and the measurements
                are no mapping, or a handler or an ambient `context` trips over metadata that are
                none.
            ValueError: The event name is empty, or a segment is empty or has a ``.`` or ``*``.

        Example:
            >>> import telemetry
            >>> telemetry.execute(("training", "step"), {"loss": 2.5, "lr": 2e-4}, {"step": 1})
        """
        try:
            calls = self._resolved[event]
        except (KeyError, TypeError):
            calls = self._table.resolve(event)
        if not calls:
            return
        if type(measurements) is not dict:
            check_mapping(event, "Measurements", measurements)
        ambient = ambient_metadata()
        if ambient is not None:
            try:
                metadata = {**ambient} if metadata is None else {**ambient, **metadata}
            except TypeError:
                check_mapping(event, "Metadata", metadata)
                raise
        elif metadata is None:
            metadata = {}
        for function, config, handler in calls:
            try:
                function(event, measurements, metadata, config)
            except Exception as error:
                # Metadata is checked only now: no handler shall pay for an emitter's mistake.
                check_mapping(event, "Metadata", metadata)
                self._punish(handler, event, error)

    def enabled(self, event: EventName) -> bool:
        """Whether anybody hears an event: ask before computing something costly for it.

        Raises:
            TypeError: The event is no tuple of strings.
            ValueError: It is empty or has a bad segment.

        Example:
            >>> Registry().enabled(("smartclip", "clip", "group"))
            False
        """
        try:
            return bool(self._resolved[event])
        except (KeyError, TypeError):
            return bool(self._table.resolve(event))

    def attach(
        self,
        handler_id: Hashable,
        event: Pattern,
        function: HandlerFunction,
        config: object = None,
        *,
        on_failure: OnFailure = "detach",
    ) -> Attachment:
        """Attach a handler to one event or pattern: `attach_many` with a single one."""
        return self.attach_many(handler_id, [event], function, config, on_failure=on_failure)

    def attach_many(
        self,
        handler_id: Hashable,
        events: Iterable[Pattern],
        function: HandlerFunction,
        config: object = None,
        *,
        on_failure: OnFailure = "detach",
    ) -> Attachment:
        """Attach a handler to several events or patterns: all of them or, on an error, none.

        Args:
            handler_id: Any hashable value; a string is usual.
            events: Event names or patterns. A segment ``"*"`` is any one segment, a last segment
                ``"**"`` any number of further ones. The handler is called once per event,
                however many of its patterns match.
            function: Called as ``function(event, measurements, metadata, config)`` in the
                emitter's thread. It must not write to the mappings. A strong reference is held.
            config: Handed to every call.
            on_failure: A handler that raises an ``Exception`` is detached from all its events,
                then ``("telemetry", "handler", "failure")`` is emitted, then it is logged
                (logger ``telemetry``, level ERROR). With ``"keep"`` it stays attached.

        Returns:
            An `Attachment`, which detaches the handler when it is left as a context manager.

        Raises:
            HandlerExistsError: The id is taken.
            TypeError: An event is no tuple of strings, the function does not take four positional
                arguments or is a coroutine or generator function, or the id is not hashable.
            ValueError: No events, a bad segment, a misplaced wildcard, an unknown policy.

        Example:
            >>> import telemetry
            >>> def handle(event, measurements, metadata, config):
            ...     print(config, event[0], measurements["loss_total"])
            >>> events = [("smartclip", "clip", "stop"), ("custom_loss", "stop")]
            >>> with telemetry.attach_many("my-logger", events, handle, config="seen:"):
            ...     telemetry.execute(("custom_loss", "stop"), {"loss_total": 2.8})
            seen: custom_loss 2.8
        """
        check_handler_id(handler_id)
        patterns = check_patterns(events)
        check_function(function, handler_id)
        check_on_failure(on_failure)
        handler: Handler | None = None

        def add(handlers: tuple[Handler, ...]) -> tuple[Handler, ...]:
            nonlocal handler
            if any(h.id == handler_id for h in handlers):
                raise HandlerExistsError(
                    f"Handler id {handler_id!r} is already attached. "
                    f"Choose another id, or detach it first: telemetry.detach({handler_id!r})."
                )
            handler = Handler(handler_id, patterns, function, config, on_failure)
            return (*handlers, handler)

        self._change(add)
        assert handler is not None  # noqa: S101 -- add() has run, or raised
        signals.notify(signals.handler_attached, self, handler_id=handler_id)
        return Attachment(handler_id, self._lease(handler))

    def detach(self, handler_id: Hashable, *, missing_ok: bool = False) -> None:
        """Detach a handler from all its events.

        Args:
            handler_id: The id given to `attach`.
            missing_ok: Do nothing, rather than raise, if no handler has this id.

        Raises:
            HandlerNotFoundError: No handler has this id.
        """
        check_handler_id(handler_id)
        handler = self._table.by_id(handler_id)
        if handler is not None and self._remove(handler):
            return
        if not missing_ok:
            known = ", ".join(repr(h.id) for h in self._table.handlers) or "none"
            raise HandlerNotFoundError(
                f"No handler with id {handler_id!r} is attached. Attached ids: {known}."
            )

    def list_handlers(self, prefix: EventName = ()) -> list[HandlerInfo]:
        """The attached handlers, one entry per event or pattern, in the order of attaching.

        Args:
            prefix: Only what can hear an event that begins like this; ``()`` lists all.

        Raises:
            TypeError: The prefix is no tuple of strings.
            ValueError: A segment is empty or has a ``.`` or ``*``.
        """
        check_prefix(prefix)
        return [
            HandlerInfo(handler.id, pattern, handler.function, handler.config)
            for handler in self._table.handlers
            for pattern in handler.patterns
            if overlaps(pattern, prefix)
        ]

    def span(self, prefix: EventName, metadata: Mapping[str, Any] | None = None) -> Span:
        """Time a block or a function: see `Span`.

        Example:
            >>> import telemetry
            >>> from telemetry.testing import capture
            >>> with capture(("custom_loss", "stop")) as events:
            ...     with telemetry.span(("custom_loss",), {"model_id": "m"}) as span:
            ...         span.measure(loss_total=2.8)
            >>> events[0].measurements["loss_total"], events[0].metadata["model_id"]
            (2.8, 'm')
        """
        return Span(self, prefix, metadata)

    def start_span(self, prefix: EventName, metadata: Mapping[str, Any] | None = None) -> Span:
        """Start a span to be ended by hand, with ``.stop()`` or ``.exception(error)``.

        It is nobody's current parent: spans started meanwhile do not nest in it.
        """
        span = Span(self, prefix, metadata)
        span.begin()
        return span

    def _renew(self) -> None:
        # Another thread of the parent may have been changing a table: no thread of the child will
        # release its lock, or finish what it began.
        self._lock = threading.RLock()
        self._resolved = self._table.resolved

    def _change(self, change: Callable[[tuple[Handler, ...]], tuple[Handler, ...]]) -> None:
        with self._lock:
            while True:
                before = self._table
                after = Table(change(before.handlers))
                # The collector may have run a finalizer that detached something in this thread.
                if self._table is before:
                    break
            self._table = after
            self._resolved = after.resolved

    def _remove(self, handler: Handler) -> bool:
        removed = False

        def drop(handlers: tuple[Handler, ...]) -> tuple[Handler, ...]:
            nonlocal removed
            removed = handler in handlers
            return tuple(h for h in handlers if h is not handler)

        self._change(drop)
        if removed:
            signals.notify(signals.handler_detached, self, handler_id=handler.id)
        return removed

    def _lease(self, handler: Handler) -> Lease:
        return Lease(
            detach=partial(self._remove, handler),
            is_attached=lambda: handler in self._table.handlers,
            fail=partial(self._punish, handler),
        )

    def _punish(self, handler: Handler, event: EventName, error: Exception) -> None:
        if handler.on_failure == "detach":
            self._remove(handler)
        signals.notify(signals.handler_failed, self, handler_id=handler.id, error=error)
        announce(self, handler, event, error)


def check_registry(registry: object) -> Registry:
    """Return the bus that a helper was given, or raise TypeError."""
    if not isinstance(registry, Registry):
        raise TypeError(
            f"registry must be a telemetry.Registry, got {registry!r} ({type(registry).__name__}). "
            "Leave it out for the default one."
        )
    return registry


default_registry = Registry()
