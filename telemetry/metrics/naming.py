"""What the catalogue knows about a measurement: its reported name, its unit, its description."""

from __future__ import annotations

import difflib
import string
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from telemetry.events import CATALOGUE, EventSpec, Field
from telemetry.names import REST, matches
from telemetry.records import EventName, Pattern
from telemetry.values.jsonable import bounded_repr

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
MAX_TEXT: Final = 200
"""Characters of a value of the metadata in a name or a tag, which is what Datadog allows."""

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
    return Known(
        spec.reported if spec else DEFAULT_NAME,
        unit or _unit_in(measurement),
        field.about if field else "",
    )


def with_unit(report_as: str, measurement: str, unit: str) -> str:
    """A default name, with the unit of a duration at its end, and of nothing else.

    Example:
        >>> with_unit("performance.{operation}_{measurement}_ms", "duration", "s")
        'performance.{operation}_{measurement}_s'
        >>> with_unit("performance.{operation}_{measurement}_ms", "tokens", "")
        'performance.{operation}_{measurement}'
        >>> with_unit("performance.{measurement}", "optim_step_duration_ms", "s")
        'performance.optim_step_duration_s'
    """
    start, _, end = report_as.rpartition("_")
    bare = start if end in _TIME_UNITS and start.endswith("{measurement}") else report_as
    stem, _, own = measurement.rpartition("_")
    if unit not in _TIME_UNITS or not is_duration(measurement) or own == unit:
        return bare
    if own in _TIME_UNITS:
        return bare.replace("{measurement}", f"{stem}_{unit}")
    return f"{bare}_{unit}"


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
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}}}")
        found.add(name)
    return found


def bind(template: str, event: EventName, measurement: str) -> str:
    """A template in which only keys of the metadata are left to be filled in.

    Example:
        >>> bind("{event}.{measurement}[{key}]", ("my", "batch", "stop"), "loss")
        'my.batch.loss[{key}]'
    """
    known = {"event": dotted(event), "measurement": measurement}
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(_literal(_clean(literal)))
        if name is not None:
            parts.append(_literal(_clean(known[name])) if name in known else f"{{{name}}}")
    return "".join(parts)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A template with its names replaced; what is missing or None is shown as ``?``.

    Example:
        >>> fill("{split}.{measurement}", {"split": "val"})
        'val.?'
    """
    return template.format_map(_Shown(values)) if "{" in template or "}" in template else template


def text(value: object) -> str:
    """A value of the metadata as a name or a tag shows it: valid UTF-8, of bounded length.

    Example:
        >>> text(("layer", "conv1")), text(True), text(3)
        ('layer/conv1', 'true', '3')
    """
    if type(value) is str and len(value) <= MAX_TEXT and value.isascii():
        return value
    try:
        shown = "/".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except Exception:
        shown = bounded_repr(value)  # metadata can hold anything
    shown = _clean(shown.lower() if isinstance(value, bool) else shown)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def _clean(shown: str) -> str:
    """Without lone surrogates, which no sink can encode."""
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def _literal(shown: str) -> str:
    return shown.replace("{", "{{").replace("}", "}}")


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


def _unit_in(measurement: str) -> str:
    """The unit that a duration has in its own name."""
    unit = measurement.rpartition("_")[2]
    return unit if unit in _TIME_UNITS and is_duration(measurement) else ""


def _is_span_duration(event: Pattern, measurement: str) -> bool:
    return measurement == "duration" and event[-1] in ("stop", "exception")


class _Shown:
    """Only what a template names is made text: metadata can hold anything."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> str:
        value = self._values.get(key)
        return "?" if value is None else text(value)
