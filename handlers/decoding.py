"""A line of JSON as an event again: what `handlers.encoding` wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from handlers.records import TimedEvent
from telemetry import SpanContext

SPAN: Final = "telemetry_span_context"
SECOND: Final = 1_000_000_000
END_OF_TIME: Final = 2**63
"""The first nanosecond since 1970 that has no room in 64 bits: it is in the year 2262."""
DEPTH: Final = 100
"""Levels of lists and objects; `handlers.encoding` writes a third of that."""

_NONFINITE: Final = {
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
# Integers of more than 64 bits are written as text.
_BIG: Final = re.compile(r"-?[1-9][0-9]{18,999}")


def decode(line: bytes | str, *, time_ns: int | None = None) -> TimedEvent:
    """Read an event.

    In the measurements, the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` are numbers
    again, as are integers of more than 64 bits, and ``telemetry_span_context`` is a `SpanContext`.
    Whatever else JSON has no form for stays what it was written as.

    Args:
        line: One object with ``timestamp``, ``event``, ``measurements`` and ``metadata``.
        time_ns: When the event was emitted, where that is known better than to the microsecond.

    Raises:
        ValueError: It is none, or one that no handler could take.

    Example:
        >>> line = '{"timestamp":"2026-11-21T10:30:00.123456Z","event":"training.step",'
        >>> event = decode(line + '"measurements":{"loss":"NaN"},"metadata":{"step":1}}')
        >>> event.time_ns, event.event, event.measurements, event.metadata
        (1795257000123456000, ('training', 'step'), {'loss': nan}, {'step': 1})
    """
    record = orjson.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"no JSON object, but {type(record).__name__}")  # noqa: TRY004 -- the text is what is wrong
    measurements, metadata = (_mapping(record, key) for key in ("measurements", "metadata"))
    return TimedEvent(
        _checked(_time_ns(record.get("timestamp")) if time_ns is None else time_ns),
        _name(record.get("event")),
        {key: _number(value) for key, value in measurements.items()},
        {key: _span(value) if key == SPAN else value for key, value in metadata.items()},
    )


def _mapping(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    mapping = record.get(key)
    if not isinstance(mapping, dict):
        raise ValueError(f"{key!r} is no object")  # noqa: TRY004 -- the text is what is wrong
    if _is_deeper(mapping, DEPTH):
        raise ValueError(f"{key!r} is nested deeper than {DEPTH} levels")
    return mapping


def _is_deeper(value: object, levels: int) -> bool:
    """Whether it is nested deeper; what was written by others could be too deep for this stack."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def _name(text: object) -> tuple[str, ...]:
    name = tuple(text.split(".")) if isinstance(text, str) else ()
    if not name or not all(name) or any("*" in segment for segment in name):
        raise ValueError(f"'event' is no name of an event: {text!r}")
    return name


def _time_ns(text: object) -> int:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"'timestamp' is no time with its zone: {text!r}")
    # In whole numbers: a float of seconds has no room for microseconds of this century.
    return int(moment.replace(microsecond=0).timestamp()) * SECOND + moment.microsecond * 1000


def _checked(time_ns: int) -> int:
    if not 0 <= time_ns < END_OF_TIME:
        raise ValueError("its time is not between 1970 and 2262")
    return time_ns


def _number(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if _BIG.fullmatch(value) else _NONFINITE.get(value, value)
    return [_number(item) for item in value] if isinstance(value, list) else value


def _span(value: Any) -> Any:
    try:
        span, parent, trace = (value[key] for key in SpanContext._fields)
        return SpanContext(_id(span), None if parent is None else _id(parent), _id(trace))
    except (KeyError, TypeError, ValueError):
        return value  # the caller's own, of another form


def _id(text: str) -> int:
    number = int(text, 16)
    if not 0 < number < 2**64:
        raise ValueError(text)
    return number
