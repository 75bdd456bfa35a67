"""An event as one line of JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import orjson

from handlers.timestamps import timestamp
from telemetry import EventName, SpanContext
from telemetry.values import jsonable, on_device

_NEVER_NAN: Final = frozenset({bool, int, str, type(None), SpanContext})


class WouldWaitError(Exception):
    """A value is on a device, and reading it would make the caller wait."""


def host_only(value: object) -> Any:
    """`jsonable` of a value that can be read at once; a mapping as a dictionary of its values.

    Raises:
        WouldWaitError: It is on a device.
    """
    if type(value) is SpanContext:
        return jsonable(value)
    if on_device(value):
        raise WouldWaitError
    # What is inside of something has to be asked as well.
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return jsonable(value)


def all_finite(*mappings: Mapping[str, Any]) -> bool:
    """Whether no value can be a NaN or an infinity, at a glance.

    False also where that would need a closer look: at arrays, and into lists.
    """
    try:
        return all(
            type(value) in _NEVER_NAN or (type(value) is float and value - value == 0)
            for mapping in mappings
            for value in mapping.values()
        )
    except Exception:
        return False  # a mapping that cannot be looked through gets the closer look


def encode(
    time_ns: int, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bytes:
    r"""Write an event as JSON, with a line's end.

    NaN and the infinities become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; what
    JSON has no form for becomes what `telemetry.values.jsonable` makes of it. Never raises.

    Args:
        time_ns: When it was emitted, in nanoseconds since 1970 (UTC).
        event: Its name.
        measurements: Numbers, arrays, tensors, anything.
        metadata: Anything.

    Example:
        >>> encode(1795257000123456789, ("training", "step"), {"loss": float("nan")}, {"step": 1})
        b'{"timestamp":"2026-11-21T10:30:00.123456Z","event":"training.step","measurements":{"loss":"NaN"},"metadata":{"step":1}}\n'
    """
    record = {
        "timestamp": timestamp(time_ns),
        "event": jsonable(".".join(event)),
        "measurements": _object(measurements),
        "metadata": _object(metadata),
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _object(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Each value by itself, so that a hostile one costs no other."""
    try:
        items = list(mapping.items())
    except Exception:
        return {"unreadable": jsonable(mapping)}
    written: dict[str, Any] = {}
    for key, value in items:
        name = _key(key)
        if name in written:  # 1 and "1"
            name = f"{name} ({type(key).__name__})"
        written[name] = _form(value)
    return written


def _key(key: object) -> str:
    if type(key) is str:
        return str(jsonable(key))
    try:
        (name,) = jsonable({key: None})
    except Exception:
        return "unreadable"
    return str(name)


def _form(value: object) -> Any:
    """The fast path's form of what numpy made, which is shorter for floats of 16 and 32 bits."""
    if type(value).__module__ == "numpy":
        try:
            text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        except Exception:
            return jsonable(value)
        if b"null" not in text:
            return orjson.Fragment(text)
    return jsonable(value)
