"""An event as one line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from handlers.timestamps import timestamp
from telemetry import EventName
from telemetry.values import jsonable, on_device


class WouldWaitError(Exception):
    """A value is on a device, and reading it would make the caller wait."""


def host_only(value: object) -> Any:
    """`jsonable` of a value that can be read at once; a mapping as a dictionary of its values.

    Raises:
        WouldWaitError: It is on a device.
    """
    if on_device(value):
        raise WouldWaitError
    # The values of a mapping that is no dict have to be asked as well.
    return dict(value) if isinstance(value, Mapping) else jsonable(value)


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
    return {_key(key): jsonable(value) for key, value in items}


def _key(key: object) -> str:
    (name,) = jsonable({key: None})
    return str(name)
