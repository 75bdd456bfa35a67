"""What of a measurement can be held for long, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from numbers import Complex, Number, Real
from typing import Any, Final, SupportsFloat, cast

from telemetry.values import on_device, to_python, to_python_many
from telemetry.values.jsonable import MAX_REPR, bounded_repr

HOST: Final = frozenset({bool, int, float, type(None)})
"""Types of values that are held as they are."""
LARGEST: Final = 16
"""Numbers in an array that is held."""
_FLOAT_BITS: Final = 1023
"""An integer of more has no place among floats, nor, of many more, in JSON."""


def keepable(values: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Measurements as they can be held: small, and without the graph that computed them.

    What is on a device stays there and is not read. Nothing is ever raised.

    Args:
        values: Measurements.

    Returns:
        A new dictionary, and whether something in it is on a device.

    Example:
        >>> import numpy as np
        >>> keepable({"loss": np.float32(0.5), "weights": np.zeros((1000, 1000))})
        ({'loss': 0.5, 'weights': '<ndarray of shape (1000, 1000)>'}, False)
    """
    kept = {_name(name): _keepable(value) for name, value in values.items()}
    return kept, any(map(on_device, kept.values()))


def read_all(mappings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is held, as numbers, strings, None and lists of these, which JSON has a form for.

    It waits for a device whose values have not been read yet. Nothing is ever raised.

    Args:
        mappings: Measurements, as `keepable` gives them.

    Returns:
        A new dictionary for each.

    Example:
        >>> import numpy as np
        >>> read_all([{"loss": np.float32(0.5)}, {"root": 1j}])
        [{'loss': 0.5}, {'root': '<complex>'}]
    """
    return [
        {_name(name): _plain(value) for name, value in mapping.items()}
        for mapping in to_python_many(mappings)
    ]


def _keepable(value: Any) -> Any:
    try:
        return value if type(value) in HOST else _small(value)
    except Exception:
        return _kind(value)  # of an object that can do nothing, at least this is told


def _small(value: Any) -> Any:
    if issubclass(type(value), str):
        return str.__str__(value)[:MAX_REPR]
    if isinstance(value, Real):
        return _plain(to_python(value))
    if isinstance(value, Number) and not isinstance(value, Complex):
        return float(cast("SupportsFloat", value))  # a decimal.Decimal is none of the others
    shape = tuple(value.shape)
    if prod(shape) > LARGEST:
        return f"<{type(value).__name__} of shape {shape}>"
    if on_device(value):
        if hasattr(value, "assign"):
            value = value + 0  # a variable, such as a learning rate's, is written to in place
        return value.detach() if hasattr(value, "detach") else value
    return _plain(to_python(value))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is int:
        return value if value.bit_length() <= _FLOAT_BITS else f"<int of {value.bit_length()} bits>"
    if kind in HOST or kind is str:
        return value
    return [_plain(item) for item in value] if kind is list else _kind(value)


def _name(name: Any) -> str:
    if type(name) is str:
        return name
    return str.__str__(name) if issubclass(type(name), str) else bounded_repr(name)


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"
