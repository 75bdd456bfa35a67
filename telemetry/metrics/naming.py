"""What the catalogue knows about a measurement: its reported name, its unit, its description."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from telemetry.events import CATALOGUE, EventSpec, Field
from telemetry.names import REST, matches
from telemetry.records import Pattern

ANY: Final = "*"
"""The measurement that stands for all that no definition names."""

CLOCKS: Final = frozenset({"monotonic_time", "system_time"})
"""Readings of a clock, which tell when and not how much."""

DEFAULT_NAME: Final = "{event}.{measurement}"
_TIME_UNITS: Final = frozenset({"ns", "us", "ms", "s", "min", "h"})


class Known(NamedTuple):
    """What is known about a measurement without being told."""

    report_as: str
    unit: str
    about: str


def known(event: Pattern, measurement: str) -> Known:
    """What the catalogue, and the habits of spans, say about a measurement."""
    spec = _spec_of(event)
    field = _field_of(spec, measurement)
    unit = "ns" if _is_span_duration(event, measurement) else field.unit if field else ""
    return Known(spec.reported if spec else DEFAULT_NAME, unit, field.about if field else "")


def with_unit(report_as: str, measurement: str, unit: str) -> str:
    """A default name, with the unit of a duration at its end if it does not say it yet."""
    suffix = f"_{unit}"
    if unit not in _TIME_UNITS or not is_duration(measurement):
        return report_as
    whole = report_as.replace("{measurement}", measurement)
    return report_as if whole.endswith(suffix) else report_as + suffix


def is_duration(measurement: str) -> bool:
    """Whether a measurement is a duration, by its name.

    Example:
        >>> is_duration("duration"), is_duration("optim_step_duration_ms"), is_duration("loss")
        (True, True, False)
    """
    stem, _, unit = measurement.rpartition("_")
    name = stem if unit in _TIME_UNITS else measurement
    return name == "duration" or name.endswith("_duration")


def fields_of(template: str) -> set[str]:
    """The names in braces of a template.

    Raises:
        ValueError: It is none, or has more than names in its braces.
    """
    found = set()
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name or spec or conversion or not name.replace("_", "").isalnum():
            raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}}}")
        found.add(name)
    return found


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A template with its names replaced; what is missing is shown as ``?``.

    Example:
        >>> fill("{split}.{measurement}", {"split": "val"})
        'val.?'
    """
    return template.format_map(_Shown(values))


def text(value: object) -> str:
    """A value of the metadata as a name or a tag shows it.

    Example:
        >>> text(("layer", "conv1")), text(True), text(3)
        ('layer/conv1', 'true', '3')
    """
    if isinstance(value, tuple | list):
        return "/".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def dotted(event: Pattern) -> str:
    """The name of an event in reported names: a span's stop has the name of the span.

    Example:
        >>> dotted(("my", "batch", "stop")), dotted(("my", "event"))
        ('my.batch', 'my.event')
    """
    return ".".join(event[:-1] if event[-1] == "stop" and len(event) > 1 else event)


def is_event(name: Pattern) -> bool:
    """Whether the catalogue has an event of this name.

    Example:
        >>> is_event(("training", "step")), is_event(("training", "step", "loss"))
        (True, False)
    """
    return any(spec.name == name for spec in CATALOGUE)


def unknown(event: Pattern, measurement: str, *, counted: bool) -> str:
    """What is probably a slip in the name of an event or a measurement, in words; "" if nothing.

    Events of a family that the catalogue does not have are somebody's own, unless they are nearly
    spelled like one that it has.
    """
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    if not specs:
        return _unknown_event(event)
    names = {field.name for spec in specs for field in spec.measurements}
    open_to_more = any(spec.emitter == "your code" for spec in specs)
    if counted or measurement == ANY or measurement in names or open_to_more or event[-1] == REST:
        return ""
    near = difflib.get_close_matches(measurement, names, n=3, cutoff=0.5) or sorted(names)
    return (
        f"{'.'.join(event)} has no measurement {measurement!r} in the event catalogue. "
        f"Nearest: {', '.join(near)}."
    )


def _unknown_event(event: Pattern) -> str:
    name = ".".join(event)
    near = difflib.get_close_matches(name, [spec.dotted for spec in CATALOGUE], n=3, cutoff=0.6)
    families = {spec.name[0] for spec in CATALOGUE}
    if not near and event[0] not in families:
        return ""
    near = near or [spec.dotted for spec in CATALOGUE if spec.name[0] == event[0]]
    return f"{name} is not in the event catalogue. Nearest: {', '.join(near)}."


def _spec_of(event: Pattern) -> EventSpec | None:
    """The row of an event, or of a pattern that stands for rows reported alike."""
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    return specs[0] if specs and len({spec.reported for spec in specs}) == 1 else None


def _field_of(spec: EventSpec | None, measurement: str) -> Field | None:
    fields = spec.measurements if spec else ()
    return next((field for field in fields if field.name == measurement), None)


def _is_span_duration(event: Pattern, measurement: str) -> bool:
    return measurement == "duration" and event[-1] in ("stop", "exception")


class _Shown:
    """Only what a template names is made text: metadata can hold anything."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> str:
        return text(self._values[key]) if key in self._values else "?"
