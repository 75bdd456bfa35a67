"""A line of JSON as an event again: what `handlers.encoding` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from handlers.records import TimedEvent
from telemetry.values import (
    DEEPEST,
    check_time_ns,
    is_too_deep,
    restore_metadata,
    restore_number,
    restore_time_ns,
)


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
        check_time_ns(_time_ns(record.get("timestamp")) if time_ns is None else time_ns),
        _name(record.get("event")),
        {key: restore_number(value) for key, value in measurements.items()},
        restore_metadata(metadata),
    )


def _mapping(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    mapping = record.get(key)
    if not isinstance(mapping, dict):
        raise ValueError(f"{key!r} is no object")  # noqa: TRY004 -- the text is what is wrong
    if is_too_deep(mapping):
        raise ValueError(f"{key!r} is nested deeper than {DEEPEST} levels")
    return mapping


def _name(text: object) -> tuple[str, ...]:
    name = tuple(text.split(".")) if isinstance(text, str) else ()
    if not name or not all(name) or any("*" in segment for segment in name):
        raise ValueError(f"'event' is no name of an event: {text!r}")
    return name


def _time_ns(text: object) -> int:
    try:
        return restore_time_ns(text)
    except ValueError as error:
        raise ValueError(f"'timestamp' is {error}") from None
