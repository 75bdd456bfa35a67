"""Between which values nothing is wrong: fixed, or moving with the level of a series."""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple

from telemetry.alerts.level import Between
from telemetry.alerts.rule import Rule

LARGEST: Final = sys.float_info.max
NEAR: Final = 1e-14
"""How near to a limit, as a share of it, the product of two floats may be on its wrong side."""


class Bounds(NamedTuple):
    """Between which values nothing is wrong, and between which it is over again."""

    low: float
    high: float
    clear_low: float
    clear_high: float


def fixed_bounds(rule: Rule) -> Bounds | None:
    """The bounds of a rule; None if they move.

    Example:
        >>> fixed_bounds(Rule("kl", "rl.kl_divergence", above=0.1, clear=0.08))
        Bounds(low=-inf, high=0.1, clear_low=-inf, clear_high=0.08)
    """
    clear = rule.clear if rule.share is None else None
    if rule.above is not None:
        return Bounds(-inf, rule.above, -inf, _or(clear, rule.above))
    if rule.below is not None:
        return Bounds(rule.below, inf, _or(clear, rule.below), inf)
    if rule.outside is not None:
        low, high = rule.outside
        return Bounds(low, high, *(clear if isinstance(clear, tuple) else (low, high)))
    if rule.nonfinite:
        return Bounds(-LARGEST, LARGEST, -LARGEST, LARGEST)
    return None


@lru_cache(maxsize=256)
def moving_bounds(rule: Rule) -> MovingBounds:
    """Those of a rule, for all of its series."""
    return MovingBounds(rule)


class MovingBounds:
    """Bounds around a level.

    Args:
        rule: On a drop or a spike.

    Example:
        >>> moving = MovingBounds(Rule("slow", "my.speed", drop=0.7))
        >>> moving.around(10.0, 2.0).low
        3.0
    """

    __slots__ = ("_clear", "_is_drop", "_limit")

    def __init__(self, rule: Rule) -> None:
        self._is_drop = rule.drop is not None
        limit = _or(rule.drop, _or(rule.spike, 0.0))
        self._limit, self._clear = self._factor(limit), self._factor(_or(rule.clear, limit))

    def around(self, level: float | None, value: float) -> Bounds | None:
        """The bounds for a value; None where there is no level, or none that a share can be of."""
        if level is None or level <= 0:
            return None
        limit = _times(self._limit, level, value)
        clear = limit if self._clear is self._limit else _times(self._clear, level, value)
        return Bounds(limit, inf, clear, inf) if self._is_drop else Bounds(-inf, limit, -inf, clear)

    def calm(self, between: Between) -> tuple[int, float, float]:
        """How many values need not be judged if they are between two others."""
        if between.room and between.high <= 0:
            return between.room, -LARGEST, LARGEST
        if not between.room or between.low <= 0:
            return 0, inf, -inf
        factor = self._limit[0]
        if self._is_drop:
            return between.room, factor * between.high * (1 + NEAR), LARGEST
        return between.room, -LARGEST, min(LARGEST, factor * between.low * (1 - NEAR))

    def _factor(self, share: float) -> tuple[float, Fraction]:
        # As it was written: 1 - 0.7 in floats is more than 0.3.
        exact = Fraction(str(share))
        exact = 1 - exact if self._is_drop else exact
        return float(exact), exact


def _times(factor: tuple[float, Fraction], level: float, value: float) -> float:
    """So many times the level; exactly so where the value might be the limit itself."""
    limit = factor[0] * level
    if limit * (1 - NEAR) <= value <= limit * (1 + NEAR) and limit < LARGEST / 2:
        return float(factor[1] * Fraction(str(level)))
    return limit


def _or(given: object, otherwise: float) -> float:
    return given if isinstance(given, float) else otherwise
