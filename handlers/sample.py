"""Only a random part of the events."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from handlers.forks import renew_in_children
from handlers.records import Sink
from telemetry import EventName


class Sample:
    """Hands on each event with a probability.

    The dice are its own: a user's seeded generator gives the same numbers with and without it.

    Args:
        sink: What takes the events.
        probability: More than 0, at most 1.

    Example:
        >>> handle = Sample(lambda event, *_: print(event), 1.0)
        >>> handle(("training", "step"), {}, {}, None)
        ('training', 'step')
    """

    def __init__(self, sink: Sink, probability: float) -> None:
        self._sink = sink
        self._probability = probability
        self._random = Random()
        renew_in_children(self)

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Throw the dice for one event."""
        if self._random.random() < self._probability:
            self._sink(event, measurements, metadata, config)

    def after_fork(self) -> None:
        """In a forked child: dice that fall differently from the parent's."""
        self._random.seed()
