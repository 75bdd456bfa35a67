"""The event catalogue: what is emitted, with which measurements and metadata.

It is data. ``telemetry events`` prints it, the documentation is rendered from it, and the tests
hold it against what the emitters send.

Example:
    >>> spec = find(("training", "step"))
    >>> spec.reported_name("loss", {"step": 1})
    'training.loss'
"""

from __future__ import annotations

from telemetry.events.catalogue import CATALOGUE
from telemetry.events.spec import EventSpec, Field
from telemetry.names import check_event, check_pattern, matches
from telemetry.records import EventName, Pattern

__all__ = ["CATALOGUE", "EventSpec", "Field", "find", "select"]


def find(event: EventName) -> EventSpec | None:
    """The row of an event, None for one that the catalogue does not know.

    Raises:
        TypeError: It is no tuple of strings.
        ValueError: It is empty or has a bad segment.
    """
    check_event(event)
    return next((spec for spec in CATALOGUE if matches(spec.name, event)), None)


def select(pattern: Pattern) -> list[EventSpec]:
    """The rows whose name a pattern matches.

    Raises:
        TypeError: It is no tuple of strings.
        ValueError: It is empty or has a bad segment.
    """
    check_pattern(pattern)
    return [spec for spec in CATALOGUE if matches(pattern, spec.name)]
