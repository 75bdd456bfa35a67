"""Which events the emitter's thread cannot deliver without waiting for a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from telemetry import SpanContext
from telemetry.values import on_device, to_python_many

HOST_TYPES: Final = frozenset({bool, int, float, str, type(None), SpanContext})
MAX_DEPTH: Final = 4
MAX_ITEMS: Final = 256


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
        return _any_waits((*measurements.values(), *metadata.values()), MAX_DEPTH)
    except Exception:
        return False


def read_many(mappings: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """`to_python_many`, of which events that have plain values already are spared the cost.

    Example:
        >>> import numpy as np
        >>> read_many([{"loss": np.float32(0.5)}, {"step": 1}])
        [{'loss': 0.5}, {'step': 1}]
    """
    if HOST_TYPES.issuperset(map(type, chain.from_iterable(map(dict.values, mappings)))):
        return mappings
    strange = [
        mapping for mapping in mappings if not HOST_TYPES.issuperset(map(type, mapping.values()))
    ]
    read = dict(zip(map(id, strange), to_python_many(strange), strict=True))
    return [read.get(id(mapping), mapping) for mapping in mappings]


def _any_waits(values: Iterable[object], depth: int) -> bool:
    return any(_waits(value, depth) for value in islice(values, MAX_ITEMS))


def _waits(value: object, depth: int) -> bool:
    if type(value) in HOST_TYPES or depth == 0:
        return False
    if isinstance(value, Mapping):
        return _any_waits(value.values(), depth - 1)
    if isinstance(value, list | tuple):
        return _any_waits(value, depth - 1)
    return on_device(value)
