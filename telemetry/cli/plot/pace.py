"""How often ``telemetry plot --follow`` draws again."""

from __future__ import annotations

from typing import Final

LOOK: Final = 1.0
"""Seconds between two looks at logs that are followed, at least."""
LONGEST: Final = 10.0
"""And at most, however long drawing takes."""
SHARE: Final = 0.1
"""Of the time that is spent on drawing: who watches a training leaves the machine to it."""


def pause_after(spent: float, *, first: bool) -> float:
    """How many seconds to wait for the next look.

    Args:
        spent: Seconds of the processor that the last look and drawing took.
        first: Whether it was the first, which took its time for importing what draws.

    Example:
        >>> pause_after(0.5, first=False), pause_after(0.5, first=True)
        (5.0, 1.0)
    """
    return LOOK if first else min(max(LOOK, spent / SHARE), LONGEST)
