"""Helpers for tests of instrumented code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from telemetry.names import ALL
from telemetry.records import Event, EventName, Pattern
from telemetry.registry import Registry, default_registry

__all__ = ["capture"]

_numbers = count(1)


@contextmanager
def capture(*patterns: Pattern, registry: Registry = default_registry) -> Iterator[list[Event]]:
    """Collect the events emitted inside the block, from all threads.

    Args:
        *patterns: Which events; without any, all.
        registry: The bus to listen to.

    Yields:
        A list of `Event`, growing as they come. The mappings are copies, so that an emitter that
        uses a dictionary again does not change the past; the values in them are not copied.

    Raises:
        TypeError: A pattern is no tuple of strings.
        ValueError: A pattern has a bad segment or a misplaced wildcard.

    Example:
        >>> import telemetry
        >>> with capture(("training", "*")) as events:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> events
        [Event(event=('training', 'step'), measurements={'loss': 2.5}, metadata={'step': 1})]
    """
    events: list[Event] = []

    def record(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any], _: object
    ) -> None:
        events.append(Event(event, dict(measurements), dict(metadata)))

    with registry.attach_many(f"capture-{next(_numbers)}", list(patterns) or [ALL], record):
        yield events
