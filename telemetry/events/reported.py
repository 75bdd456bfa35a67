"""The name under which a measurement is shown in plots and by sinks."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, Final

from telemetry.records import EventName, Pattern
from telemetry.values.jsonable import bounded_repr

MAX_TEXT: Final = 200
"""Characters of a value of the metadata in a name or a tag, which is what Datadog allows."""

_TIME_UNITS: Final = frozenset({"ns", "us", "ms", "s", "min", "h"})


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


def measured_in(event: Pattern, measurement: str, unit: str) -> str:
    """The unit of a measurement that the catalogue gives a unit, or none.

    Example:
        >>> measured_in(("my", "span", "stop"), "duration", ""), measured_in(("a",), "b_ms", "")
        ('ns', '')
    """
    if measurement == "duration" and event[-1] in ("stop", "exception"):
        return "ns"
    named = measurement.rpartition("_")[2]
    return unit or (named if named in _TIME_UNITS and is_duration(measurement) else "")


def reported_in(measurement: str, unit: str) -> str:
    """The unit in which what is measured in another is reported, unless somebody asks for one.

    Example:
        >>> reported_in("duration", "ns"), reported_in("size_bytes", "bytes")
        ('ms', 'bytes')
    """
    return "ms" if unit == "ns" and not measurement.endswith("_ns") else unit


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


class _Shown:
    """Only what a template names is made text: metadata can hold anything."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> str:
        value = self._values.get(key)
        return "?" if value is None else text(value)
