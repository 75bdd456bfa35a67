"""Statements as lines for StatsD servers that are not Datadog's."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from typing import Final

from handlers.datadog_statements import Point, Statement
from handlers.dogstatsd_text import plain_decimal

logger = logging.getLogger("telemetry")

_TYPES: Final = {
    "gauge": "g",
    "count": "c",
    "histogram": "ms",
    "distribution": "ms",
    "timing": "ms",
    "set": "s",
}
_SAMPLED: Final = frozenset({"c", "ms"})


class PlainStatsdLines:
    """Writes points as lines, without what StatsD does not have: tags, events, service checks.

    Histograms and distributions are its timers, which are what it computes percentiles of. That
    events are left out is logged once.

    Args:
        handler_id: Whose.
        size: How many bytes a line has at most.

    References:
        https://github.com/statsd/statsd/blob/master/docs/metric_types.md

    Example:
        >>> lines = PlainStatsdLines("datadog", 1432)
        >>> lines.lines(Point("gauge", "training.loss", -2.5, (), 1.0, 0))
        ([b'training.loss:0|g', b'training.loss:-2.5|g'], 0)
    """

    def __init__(self, handler_id: Hashable, size: int) -> None:
        self._handler_id = handler_id
        self._size = size
        self._said = False

    def lines(self, statement: Statement) -> tuple[list[bytes], int]:
        """The lines of a statement, none if sampling leaves it out; how many are too long."""
        if not isinstance(statement, Point):
            self._say_once()
            return [], 0
        if statement.rate < 1 and random.random() >= statement.rate:
            return [], 0
        kind = _TYPES[statement.kind]
        value = statement.value
        shown = value if isinstance(value, str) else plain_decimal(float(value))
        rate = (
            f"|@{plain_decimal(statement.rate)}" if statement.rate < 1 and kind in _SAMPLED else ""
        )
        line = f"{statement.name}:{shown}|{kind}{rate}".encode()
        if len(line) > self._size:
            return [], 1
        if kind == "g" and shown.startswith("-"):
            # With a sign it would be a change of the gauge, so it is one from zero.
            return [f"{statement.name}:0|g".encode(), line], 0
        return [line], 0

    def _say_once(self) -> None:
        if not self._said:
            self._said = True
            logger.warning(
                "Handler %r leaves events and service checks out: plain StatsD has none. "
                "Datadog's Agent takes them with dialect='datadog'.",
                self._handler_id,
            )
