"""What `jsonable` made of values, as values again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from telemetry.span_context import SpanContext
from telemetry.values.jsonable import LARGEST, SMALLEST

SECOND: Final = 1_000_000_000
SPAN: Final = "telemetry_span_context"
END_OF_TIME: Final = 2**63
"""The first nanosecond since 1970 that has no room in 64 bits: it is in the year 2262."""

_NONFINITE: Final = {
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
# Integers of more than 64 bits are written as text.
_BIG: Final = re.compile(r"-?[1-9][0-9]{18,999}")
_ID: Final = re.compile(r"[0-9a-f]{16}")


def restore_number(value: Any) -> Any:
    """A measurement as it was before it became JSON.

    The strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` are numbers again, as are digits of
    integers beyond 64 bits, in lists too. Whatever else is left as it is.

    Example:
        >>> restore_number(["NaN", "1180591620717411303424", 2.5])
        [nan, 1180591620717411303424, 2.5]
    """
    if isinstance(value, str):
        return _integer(value) if _BIG.fullmatch(value) else _NONFINITE.get(value, value)
    return [restore_number(item) for item in value] if isinstance(value, list) else value


def restore_span(value: Any) -> Any:
    """A ``telemetry_span_context`` as a `SpanContext`; one of another form is left as it is.

    Example:
        >>> text = "00000000000000ff"
        >>> restore_span({"span_id": text, "parent_id": None, "trace_id": text})
        SpanContext(span_id=255, parent_id=None, trace_id=255)
    """
    try:
        span, parent, trace = (value[key] for key in SpanContext._fields)
        if len(value) != len(SpanContext._fields):
            return value
        return SpanContext(_id(span), None if parent is None else _id(parent), _id(trace))
    except (KeyError, TypeError, ValueError):
        return value  # the caller's own, of another form


def restore_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as they were before they became JSON, as far as they can be told: the span's place.

    Example:
        >>> restore_metadata({"step": 1, "telemetry_span_context": None})
        {'step': 1, 'telemetry_span_context': None}
    """
    return {key: restore_span(value) if key == SPAN else value for key, value in metadata.items()}


def check_time_ns(time_ns: int) -> int:
    """Return a time in nanoseconds since 1970 if 64 bits have room for it.

    Raises:
        ValueError: They have not.

    Example:
        >>> check_time_ns(2**63)
        Traceback (most recent call last):
        ValueError: its time is not between 1970 and 2262
    """
    if not 0 <= time_ns < END_OF_TIME:
        raise ValueError("its time is not between 1970 and 2262")
    return time_ns


def restore_time_ns(text: object) -> int:
    """A time in ISO 8601 as nanoseconds since 1970 (UTC), exact to the microsecond.

    Raises:
        ValueError: It is none, or says no zone.

    Example:
        >>> restore_time_ns("2026-11-21T10:30:00.123456Z")
        1795257000123456000
    """
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"no time with its zone: {text!r}")
    # In whole numbers: a float of seconds has no room for microseconds of this century.
    return int(moment.replace(microsecond=0).timestamp()) * SECOND + moment.microsecond * 1000


def _integer(text: str) -> int | str:
    number = int(text)
    return text if SMALLEST <= number <= LARGEST else number  # it would be a number if it were one


def _id(text: str) -> int:
    number = int(text, 16) if _ID.fullmatch(text) else 0
    if number == 0:
        raise ValueError(text)
    return number
