"""So many a second and no more, after a few at once."""

from __future__ import annotations

from typing import Final

BURST: Final = 5
"""How many may go at once when there was nothing for a while."""


class RateLimit:
    """Says when the next message may go: a token bucket, kept as the moment it will be full.

    Args:
        per_second: Messages a second in the long run; infinity for no limit.
        burst: How many may go at once.

    Example:
        >>> limit = RateLimit(2.0, burst=2)
        >>> [limit.take(now) for now in (10.0, 10.0, 10.0, 10.5)]
        [0.0, 0.0, 0.5, 0.0]
    """

    def __init__(self, per_second: float, burst: int = BURST) -> None:
        self.per_second = per_second
        self._interval = 1 / per_second
        self._burst = burst
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take a token; 0, or the seconds until there is one.

        Args:
            now: Seconds of a clock that never goes back.
        """
        full_at = max(self._full_at, now) + self._interval
        wait = full_at - now - self._burst * self._interval
        if wait > 0:
            return wait
        self._full_at = full_at
        return 0.0
