"""Where on its axis an event stands: for sinks that draw curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from telemetry.values import to_python

KEYS: Final = ("step", "epoch", "batch_idx", "clipper_step")
"""Keys of the metadata that count something, the first that an event has."""
LAST: Final = 2**63 - 1
"""Trackers keep steps as integers of 64 bits."""


class Place(NamedTuple):
    """What is counted, and how far it was."""

    axis: str
    number: int


def place_of(metadata: Mapping[str, Any]) -> Place | None:
    """Where an event stands; None if it does not say: a sink never makes a step up.

    An event says its step by its metadata or by ``telemetry.context(step=...)`` around it. What is
    beyond 64 bits is no step of any tracker.

    Example:
        >>> place_of({"step": 3, "epoch": 1}), place_of({"name": "x"})
        (Place(axis='step', number=3), None)
    """
    for key in KEYS:
        number = metadata.get(key)
        if number is None:
            continue
        number = to_python(number)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= LAST:
            return Place(key, number)
    return None
