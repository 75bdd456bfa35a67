"""Which events the emitter's thread cannot deliver without waiting for a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry import SpanContext
from telemetry.values import on_device

HOST_TYPES: Final = frozenset({bool, int, float, str, type(None), tuple, list, dict, SpanContext})


def needs_device(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether reading a value of an event would make the reader wait for a device.

    Never raises: of a mapping that cannot be read, nothing is waited for.

    Example:
        >>> needs_device({"loss": 2.5}, {"step": 1})
        False
    """
    try:
        # The types are compared in C; most events need no closer look.
        if HOST_TYPES.issuperset(map(type, measurements.values())) and HOST_TYPES.issuperset(
            map(type, metadata.values())
        ):
            return False
        return any(map(on_device, (*measurements.values(), *metadata.values())))
    except Exception:
        return False
