"""One rule on one series: value by value, whether it is raised or cleared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from telemetry.alerts.bounds import Bounds, fixed_bounds, moving_bounds
from telemetry.alerts.level import Level
from telemetry.alerts.rule import Rule

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Change(NamedTuple):
    """An alert was raised, or is over."""

    raised: bool
    value: float
    limit: float | None
    """None where nothing but finite is asked for."""
    level: float | None = None
    """What a drop or a spike was measured from."""
    run_ended: bool = False
    """Whether it is over because its run is."""


class Track:
    """The state of a rule on a series.

    Args:
        rule: On a measurement, not on silence.
        clock: Seconds, for its cooldown.

    Attributes:
        rule: As given.
        calm_low: From here to ``calm_high`` a value changes nothing: it need not be fed, and with
            a moving level only be taken in.
        calm_high: Likewise.
        take: Takes a calm value into the moving level; None without one.
        room: How many more values may be taken before `settle` is called.
        raised: Whether it is.
        metadata: With which it was raised; whoever feeds it keeps them here.

    Example:
        >>> track = Track(Rule("kl", "rl.kl_divergence", above=0.1, clear=0.08), lambda: 0.0)
        >>> [change.raised for value in (0.05, 0.2, 0.09, 0.08) if (change := track.feed(value))]
        [True, False]
    """

    __slots__ = (
        "_bounds",
        "_clock",
        "_held",
        "_is_below",
        "_last_limit",
        "_level",
        "_most",
        "_moving",
        "_over_at",
        "_raised_at",
        "_recent",
        "_streak",
        "_value",
        "calm_high",
        "calm_low",
        "metadata",
        "raised",
        "room",
        "rule",
        "take",
    )

    def __init__(self, rule: Rule, clock: Callable[[], float]) -> None:
        self.rule = rule
        self.raised = False
        self._clock = clock
        self._bounds = fixed_bounds(rule)
        self._moving = None if self._bounds else moving_bounds(rule)
        self._level = None if self._bounds else Level(rule.window)
        self.take = None if self._level is None else self._level.add
        self.room = 0
        self._recent: deque[bool] | None = None if rule.share is None else deque()
        self._held = 0
        self._most = _of_window(rule.share, rule)
        self._over_at = _of_window(rule.clear, rule) if rule.clear is not None else self._most
        self._streak = 0
        self._is_below = False
        self._last_limit: float | None = None
        self._raised_at = -inf
        self._value = 0.0
        self.metadata: Mapping[str, Any] = NOTHING
        self.settle()

    def feed(self, value: float) -> Change | None:
        """Judge the next value; None if that changes nothing."""
        if value != value and not self.rule.nonfinite:  # noqa: PLR0124 -- a NaN, at a tenth of the cost of a call
            return None
        self._value = value
        level, bounds = None, self._bounds
        if self._level is not None and self._moving is not None:
            level = self._level.median()
            bounds = self._moving.around(level, value)
        beyond = bounds is not None and not bounds.low <= value <= bounds.high
        if self._level is not None and not beyond and isfinite(value):
            self._level.add(value)
        if bounds is None:
            self.settle()
            return None
        if self._recent is None:
            is_over = bounds.clear_low <= value <= bounds.clear_high
        else:
            beyond, is_over = self._mostly(self._recent, beyond)
        self._streak = self._streak + 1 if beyond else 0
        change = self._change(value, bounds, level, is_over=is_over)
        self.settle()
        return change

    def _change(
        self, value: float, bounds: Bounds, level: float | None, *, is_over: bool
    ) -> Change | None:
        if self.raised:
            if not is_over:
                return None
            self.raised = False
        else:
            if self._streak < self.rule.for_steps or not self._has_cooled():
                return None
            self.raised = True
            self._is_below = value < bounds.low
        return Change(self.raised, value, self._limit(bounds), level)

    def end(self) -> Change | None:
        """The run has ended: that the alert is over, if it was raised. The level stays."""
        change = Change(raised=False, value=self._value, limit=self._last_limit, run_ended=True)
        was_raised, self.raised = self.raised, False
        self._streak = self._held = 0
        if self._recent is not None:
            self._recent.clear()
        self.settle()
        return change if was_raised else None

    def _limit(self, bounds: Bounds) -> float | None:
        limit = None if self.rule.nonfinite else bounds.low if self._is_below else bounds.high
        if limit is not None and not isfinite(limit):
            limit = bounds.low if isfinite(bounds.low) else bounds.high
        self._last_limit = limit
        return limit

    def _has_cooled(self) -> bool:
        if not self.rule.cooldown:
            return True
        now = self._clock()
        if now - self._raised_at < self.rule.cooldown:
            return False
        self._raised_at = now
        return True

    def _mostly(self, recent: deque[bool], beyond: bool) -> tuple[bool, bool]:
        """Whether the condition held in more than its share of the window, and whether it is over.

        Values that have not come yet count as those in which it did not hold, and so do those that
        were calm: as long as it has held in none, nothing is written down.
        """
        recent.append(beyond)
        self._held += beyond
        if len(recent) > self.rule.window:
            self._held -= recent.popleft()
        if not self._held:
            recent.clear()
        return self._held > self._most, self._held <= self._over_at

    def settle(self) -> None:
        """Find out which values are calm from now on."""
        self.calm_low, self.calm_high = inf, -inf
        if self.raised or self._streak or self._held:
            return
        if self._bounds is not None:
            self.calm_low, self.calm_high = self._bounds.low, self._bounds.high
        elif self._level is not None and self._moving is not None:
            self.room, self.calm_low, self.calm_high = self._moving.calm(self._level.between())


def _of_window(share: object, rule: Rule) -> int:
    """How many values of the window are a share, as it was written: 0.29 of 100 are 29."""
    if rule.share is None or not isinstance(share, float):
        return 0
    return int(Fraction(str(share)) * rule.window)
