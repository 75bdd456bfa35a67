"""Keep the events in a list."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, MutableSequence
from typing import Any

from handlers.options import check_count
from handlers.records import Site
from telemetry import Event, EventName


class Memory:
    """A sink that remembers.

    The mappings are copied when they come, so that an emitter that uses a dictionary again does
    not change the past; the values in them are those that were emitted, tensors included.

    Attributes:
        events: What came, the oldest first.

    Example:
        >>> import handlers, telemetry
        >>> with handlers.attach("memory") as memory:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> memory.handler.events
        [Event(event=('training', 'step'), measurements={'loss': 2.5}, metadata={'step': 1})]
    """

    delivery = "direct"

    def __init__(self, events: MutableSequence[Event]) -> None:
        self.events = events

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Remember one event."""
        self.events.append(Event(event, dict(measurements), dict(metadata)))


def create(_site: Site, *, maxlen: int | None = None) -> Memory:
    """Make the handler ``memory``.

    Args:
        _site: Where it is attached.
        maxlen: How many events to keep, the newest; None keeps all.

    Raises:
        TypeError: ``maxlen`` is no integer.
        ValueError: It is less than 1.
    """
    if maxlen is None:
        return Memory([])
    check_count("maxlen", maxlen)
    return Memory(deque(maxlen=maxlen))
