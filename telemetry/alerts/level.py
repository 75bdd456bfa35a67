"""What a measurement usually is: the moving level that a drop or a spike is measured from."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from math import inf
from typing import Final, NamedTuple

HISTORY: Final = 10
"""Values that a level needs at least, or its whole window if that is less."""
PATIENCE: Final = 3
"""Which part of the values may be new before the middle of all is looked up again."""
FEW: Final = 16
"""Up to which part of a window new values are put in their places rather than all sorted."""


class Between(NamedTuple):
    """Within which values the median stays, whatever the next ``room`` values are."""

    low: float
    high: float
    room: int


class Level:
    """The median of the last values.

    Args:
        window: How many.

    Example:
        >>> level = Level(3)
        >>> for value in (1.0, 9.0, 2.0, 3.0):
        ...     level.add(value)
        >>> level.median()
        3.0
    """

    __slots__ = ("_known", "_least", "_ordered", "_placed", "_values", "_window", "add")

    def __init__(self, window: int) -> None:
        self._window = window
        self._least = min(HISTORY, window)
        # Numbers of 8 bytes, because there can be thousands of series. Those that are too old are
        # taken out when somebody asks.
        self._values = array("d")
        self._ordered = array("d")
        self._placed = 0  # of the values, how many have their places among the ordered
        self._known: float | None = None
        self.add = self._values.append

    def median(self) -> float | None:
        """The median; None as long as there are too few values."""
        if len(self._values) != self._placed:
            self._place()
        return self._known

    def between(self) -> Between:
        """What is known of the median without looking again.

        One more value, for which the oldest one goes, moves the middle by one place at most.
        """
        if len(self._values) != self._placed:
            self._place()
        count = self._placed
        room = count // PATIENCE
        if count < self._least or room == 0:
            return Between(-inf, inf, 0)
        ordered = self._ordered
        return Between(ordered[(count - 1) // 2 - room], ordered[count // 2 + room], room)

    def _place(self) -> None:
        """Put what was added in its place, and take out what is too old."""
        values, ordered = self._values, self._ordered
        new, old = len(values) - self._placed, max(0, len(values) - self._window)
        if new * FEW > self._window:
            del values[:old]
            ordered = self._ordered = array("d", sorted(values))
        else:
            for value in values[-new:]:
                insort(ordered, value)
            for value in values[:old]:
                del ordered[bisect_left(ordered, value)]
            del values[:old]
        count = self._placed = len(values)
        if count >= self._least:
            # Whose sum could be too large for a float.
            self._known = ordered[(count - 1) // 2] / 2 + ordered[count // 2] / 2
