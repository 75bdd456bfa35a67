"""From events to points of curves: for experiment trackers, which draw values over steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from math import isfinite
from typing import Final, NamedTuple

from handlers.axes import place_of
from handlers.records import TimedEvent
from telemetry import EventName
from telemetry.metrics import Metric, Reporter, Sample, tracking

TOTALLED: Final = frozenset({"counter", "sum"})
"""Kinds whose points are running totals."""
MOST: Final = 100_000
"""Curves whose totals are kept; with more of them, what was longest without a value begins anew."""
MAX_NAMES: Final = 4096
"""Of curves, of which the tracker's form is remembered."""

logger = logging.getLogger("telemetry")


class Point(NamedTuple):
    """One value of one curve."""

    name: str
    value: float


class Curves:
    """Applies definitions to events. One thread at a time may use it.

    A tracker does not count by itself, so the points of a `counter` or a `sum_` are running totals,
    of 100,000 curves at most.

    Args:
        metrics: The definitions; None for those of `telemetry.metrics.tracking`.

    Raises:
        TypeError: They are no list of definitions.

    Example:
        >>> curves = Curves(None)
        >>> curves.points(TimedEvent(0, ("training", "step"), {"loss": 2.5}, {"step": 1}))
        [Point(name='training.loss', value=2.5)]
    """

    def __init__(self, metrics: Iterable[Metric] | None) -> None:
        self._reporter = Reporter(tracking() if metrics is None else metrics)
        self._totals: dict[str, float] = {}
        self._told = False

    def reports(self, event: EventName) -> bool:
        """Whether events of a name can have points."""
        return self._reporter.reports(event)

    def points(self, entry: TimedEvent) -> list[Point]:
        """The points of one event, all at its step and time."""
        samples = self._reporter.sampled(entry.event, entry.measurements, entry.metadata)
        return [
            self._point(sample)
            if sample.tags or sample.metric.kind in TOTALLED
            else Point(sample.name, sample.value)
            for sample in samples
        ]

    def _point(self, sample: Sample) -> Point:
        name = _name(sample)
        # What is not finite is shown, and not added: the total would never be a number again.
        if sample.metric.kind not in TOTALLED or not isfinite(sample.value):
            return Point(name, sample.value)
        # Taken out and put in again: the first is the one that was longest without a value.
        total = self._totals.pop(name, 0.0) + sample.value
        self._totals[name] = total
        if len(self._totals) > MOST:
            self._forget_oldest()
        return Point(name, total)

    def _forget_oldest(self) -> None:
        del self._totals[next(iter(self._totals))]
        if not self._told:
            self._told = True
            logger.warning(
                "More than %d curves are running totals; those that were longest without a value "
                "begin at 0 again. Leave out tags that have many values.",
                MOST,
            )


def step_of(entry: TimedEvent) -> int:
    """Where an event stands on the axis of steps; 0 if it does not say, or beyond 64 bits.

    Example:
        >>> step_of(TimedEvent(0, ("training", "step"), {}, {"step": 3}))
        3
    """
    place = place_of(entry.metadata)
    return 0 if place is None else place.number


@lru_cache(maxsize=MAX_NAMES)
def key_of(name: str) -> str:
    """A reported name as trackers group it: by what comes before the first slash.

    Example:
        >>> key_of("training.loss"), key_of("smartclip.grad_norm[layer/encoder.0]")
        ('training/loss', 'smartclip/grad_norm[layer/encoder.0]')
    """
    stem, bracket, key = name.partition("[")
    return stem.replace(".", "/") + bracket + key


def _name(sample: Sample) -> str:
    """The reported name; values that a tag tells apart are curves of their own."""
    if not sample.tags:
        return sample.name
    return f"{sample.name}[{','.join(f'{key}={value}' for key, value in sample.tags.items())}]"
