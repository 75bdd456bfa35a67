"""Which event of a run says how its steps go: others have steps of their own, or look back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from telemetry.viewer.logs.engine import quoted

TRAINING: Final = ("training.step", "rl.step")
"""The events of the training itself."""


def leading(counts: Mapping[str, int]) -> str:
    """The leading event: of the training where it says its steps, else the most frequent one.

    Args:
        counts: How many records with a step each event has; at least one event.

    Example:
        >>> leading({"val.step": 9, "training.step": 3}), leading({"epoch_end": 3, "": 30})
        ('training.step', '')
    """
    return max(
        counts, key=lambda event: (counts[event] > 0, event in TRAINING, counts[event], event)
    )


def weight(count: str) -> str:
    """The same in SQL: what the leading event has the most of.

    Args:
        count: The column with how many records with a step an ``event`` has.
    """
    return f"({count} > 0, {of_training('event')}, {count}, event)"


def of_training(event: str) -> str:
    """Whether an event is one of the training itself, in SQL.

    Args:
        event: The column with it.
    """
    return f"{event} IN ({', '.join(map(quoted, TRAINING))})"
