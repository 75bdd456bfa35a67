"""Alerts on their way to the bus: in the order in which they were raised, and never nested."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

from telemetry.alerts.losses import Losses
from telemetry.alerts.rule import Rule
from telemetry.alerts.track import Change
from telemetry.alerts.words import message
from telemetry.log import log_error
from telemetry.records import EventName
from telemetry.registry import Registry

RAISED: Final = ("alert", "raised")
CLEARED: Final = ("alert", "cleared")
MAX_WAITING: Final = 10_000


class Outbox:
    """Emits alerts one after the other, whichever thread has found them.

    A handler of an alert may emit events that raise another: that one waits until the first was
    heard by all. Who finds somebody emitting leaves theirs to them and goes on. When too many
    wait, the oldest is dropped, which is announced as ``telemetry.handler.overflow``.

    Args:
        registry: The bus.
        handler_id: Whose.
        size: How many may wait.
    """

    def __init__(self, registry: Registry, handler_id: Hashable, size: int = MAX_WAITING) -> None:
        self._registry = registry
        self._size = size
        self._waiting: deque[_Alert] = deque()
        self._emitting = threading.Lock()
        self._losses = Losses(registry, handler_id)

    def renew(self) -> None:
        """Start anew, in a forked child."""
        self._waiting.clear()
        self._emitting = threading.Lock()
        self._losses.renew()

    def put(
        self,
        rule: Rule,
        change: Change,
        event: EventName,
        measurement: str,
        metadata: Mapping[str, Any],
        context: contextvars.Context,
    ) -> None:
        """Add an alert; `emit` sends it.

        Args:
            rule: That it is of.
            change: What has happened.
            event: The name of the event that it is about.
            measurement: Of this event; ``""`` for the event alone.
            metadata: The alert's.
            context: In which it is emitted: whichever thread does so, what is ambient there is not
                this alert's.
        """
        measurements: dict[str, Any] = {"value": change.value}
        if change.limit is not None:
            measurements["limit"] = change.limit
        about = {
            "rule": rule.name,
            "severity": rule.severity,
            "metric": ".".join((*event, measurement) if measurement else event),
            "message": _words(rule, change, event, measurement, metadata),
        }
        name = RAISED if change.raised else CLEARED
        if len(self._waiting) >= self._size:
            self._drop_oldest()
        self._waiting.append(_Alert(context, name, measurements, {**metadata, **about}))

    def emit(self) -> None:
        """Send what waits. Not to be called with a lock that a handler might wait for."""
        self._losses.announce()
        # Looked at again after letting go: what came in between found the lock taken.
        while self._waiting and self._emitting.acquire(blocking=False):
            try:
                while self._waiting:
                    alert = self._waiting.popleft()
                    alert.context.run(self._registry.execute, *alert[1:])
            finally:
                self._emitting.release()
            self._losses.announce(at_once=True)

    def _drop_oldest(self) -> None:
        try:
            self._waiting.popleft()
        except IndexError:  # just sent by the thread that emits
            return
        self._losses.add(1)


def _words(
    rule: Rule, change: Change, event: EventName, measurement: str, metadata: Mapping[str, Any]
) -> str:
    try:
        return message(rule, change, event, measurement, metadata)
    except Exception as error:
        # Metadata that cannot be written down must not keep anybody from hearing of it.
        log_error(error, "Rule %r: an error in the words of its alert: %r", rule.name, error)
        return message(rule, change, event, measurement, {})


class _Alert(NamedTuple):
    context: contextvars.Context
    name: EventName
    measurements: dict[str, Any]
    metadata: dict[str, Any]
