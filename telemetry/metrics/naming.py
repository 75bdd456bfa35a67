"""What the catalogue knows about a measurement: its reported name, its unit, its description."""

from __future__ import annotations

import difflib
import string
from collections.abc import Collection
from typing import Final, NamedTuple

from telemetry.events import CATALOGUE, EventSpec, Field
from telemetry.events.reported import measured_in
from telemetry.names import REST, matches
from telemetry.records import EventName, Pattern

ANY: Final = "*"
"""The measurement that stands for all that no definition names."""

CLOCKS: Final = frozenset({"monotonic_time", "system_time"})
"""Readings of a clock, which tell when and not how much."""

YOURS: Final = "your code"
"""The emitter of events that may have other measurements than the catalogue's as well."""

DEFAULT_NAME: Final = "{event}.{measurement}"
LIKE: Final = 0.75
"""From which ratio on each segment of a name may be a slip of another, as `difflib` measures it."""
FAMILY_LIKE: Final = 0.9
"""And the first segment by itself: "val" is no slip of "eval"."""


class Known(NamedTuple):
    """What is known about a measurement without being told."""

    report_as: str
    unit: str
    about: str


def known(event: Pattern, measurement: str) -> Known:
    """What the catalogue, and the habits of spans, say about a measurement."""
    spec = _spec_of(event)
    field = _field_of(spec, measurement)
    return Known(
        spec.reported if spec else DEFAULT_NAME,
        measured_in(event, measurement, field.unit if field else ""),
        field.about if field else "",
    )


def fields_of(template: str) -> set[str]:
    """The names in braces of a template.

    Raises:
        ValueError: It is none, or has more than names in its braces.
    """
    found = set()
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}}}")
        found.add(name)
    return found


def is_event(name: Pattern) -> bool:
    """Whether the catalogue has an event of this name.

    Example:
        >>> is_event(("training", "step")), is_event(("training", "step", "loss"))
        (True, False)
    """
    return any(spec.name == name for spec in CATALOGUE)


def unknown(event: Pattern, measurement: str, *, counted: bool) -> str:
    """What is probably a slip in the name of an event or a measurement, in words; "" if nothing.

    Events of a family that the catalogue does not have are somebody's own, unless the family or
    each segment is nearly spelled like one that it has.
    """
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    if not specs:
        return _unknown_event(event)
    names = {field.name for spec in specs for field in spec.measurements}
    open_to_more = any(spec.emitter == YOURS for spec in specs)
    if counted or measurement == ANY or measurement in names or open_to_more or event[-1] == REST:
        return ""
    near = difflib.get_close_matches(measurement, names, n=3, cutoff=0.5) or sorted(names)
    return (
        f"{'.'.join(event)} has no measurement {measurement!r} in the event catalogue. "
        f"Nearest: {', '.join(near)}."
    )


def _unknown_event(event: Pattern) -> str:
    families = _families_like(event)
    if not families:
        return ""
    name = ".".join(event)
    candidates = [spec.dotted for spec in CATALOGUE if spec.name[0] in families]
    near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.6) or candidates
    return f"{name} is not in the event catalogue. Nearest: {', '.join(near)}."


def _families_like(event: Pattern) -> Collection[str]:
    """The families of the catalogue one of which was probably meant."""
    families = {spec.name[0] for spec in CATALOGUE}
    if event[0] in families:
        return (event[0],)
    near = difflib.get_close_matches(event[0], families, n=1, cutoff=FAMILY_LIKE)
    return near or {spec.name[0] for spec in CATALOGUE if _is_like(event, spec.name)}


def _is_like(event: Pattern, name: EventName) -> bool:
    return len(event) == len(name) and all(
        difflib.SequenceMatcher(None, *pair).ratio() >= LIKE
        for pair in zip(event, name, strict=True)
    )


def _spec_of(event: Pattern) -> EventSpec | None:
    """The row of an event, or of a pattern that stands for rows reported alike."""
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    return specs[0] if specs and len({spec.reported for spec in specs}) == 1 else None


def _field_of(spec: EventSpec | None, measurement: str) -> Field | None:
    fields = spec.measurements if spec else ()
    return next((field for field in fields if field.name == measurement), None)
