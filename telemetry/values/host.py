"""Numbers, arrays and tensors of any framework to plain Python values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Final

PLAIN: Final = frozenset({bool, int, float, complex, str, type(None)})

# By the character of their dtype, numpy's long doubles, whose tolist() gives no Python numbers.
_LONG: Final = {"g": "float64", "G": "complex128"}


def to_python(value: object) -> Any:
    """The Python form of a measurement: a number, or nested lists of numbers.

    Reading a tensor makes the caller wait for its device; see `on_device`.

    Args:
        value: A number, an array or tensor of numpy, torch, jax or tensorflow of any shape and
            dtype, or anything else.

    Returns:
        A 0-d value as ``int``, ``float`` or ``bool``, one of more dimensions as nested lists.
        Infinities and NaN stay what they are. What has no such form (a string, a symbolic tensor,
        a tensor on torch's ``meta`` device) is returned unchanged. Nothing is ever raised.

    Example:
        >>> import numpy as np
        >>> to_python(np.float32(0.5)), to_python(np.arange(3)), to_python("text")
        (0.5, [0, 1, 2], 'text')
    """
    try:
        return value if type(value) in PLAIN else _read(value)
    except Exception:
        return value


def on_device(value: object) -> bool:
    """Whether reading a value would make the caller wait for an accelerator.

    True for tensors and variables on anything but the CPU, and for JAX arrays whose computation
    has not finished. Reads nothing, never raises.

    Example:
        >>> on_device(2.5)
        False
    """
    try:
        return type(value) not in PLAIN and any(
            isinstance(value, kind) and waits(value)
            for name, attribute, waits in _TENSORS
            if (kind := getattr(sys.modules.get(name), attribute, None)) is not None
        )
    except Exception:
        return False


def to_python_many(mappings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`to_python` of every value of many mappings, with one copy from each device for all of them.

    Args:
        mappings: Measurements of any number of events.

    Returns:
        A new dictionary for each, in the same order.

    Example:
        >>> to_python_many([{"loss": 2.5}, {}])
        [{'loss': 2.5}, {}]
    """
    found = [value for mapping in mappings for value in mapping.values() if on_device(value)]
    fetched: dict[int, Any] = {}
    for name, attribute, fetch in _FETCHERS:
        kind = getattr(sys.modules.get(name), attribute, None)
        mine = [value for value in found if kind is not None and isinstance(value, kind)]
        if mine:
            fetched.update(zip(map(id, mine), _attempt(fetch, mine), strict=True))
    return [
        {key: fetched.get(id(value), value) for key, value in _read_rest(mapping, fetched)}
        for mapping in mappings
    ]


def _read_rest(mapping: Mapping[str, Any], fetched: Mapping[int, Any]) -> list[tuple[str, Any]]:
    return [
        (key, value if id(value) in fetched else to_python(value)) for key, value in mapping.items()
    ]


def _read(value: Any) -> Any:
    if isinstance(value, complex):
        return complex(value)
    if hasattr(value, "tolist"):
        narrower = _LONG.get(getattr(getattr(value, "dtype", None), "char", ""))
        return (value.astype(narrower) if narrower else value).tolist()
    if hasattr(value, "numpy"):
        return value.numpy().tolist()
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _attempt(fetch: Callable[[list[Any]], list[Any]], values: list[Any]) -> list[Any]:
    try:
        return fetch(values)
    except Exception:
        return [to_python(value) for value in values]  # one bad tensor must not spoil the others


def _fetch_torch(tensors: list[Any]) -> list[Any]:
    torch = sys.modules["torch"]
    fetched: dict[int, Any] = {}
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        # As bytes, so that dtypes share the copy; widest first, so that each stays aligned.
        mine = sorted(
            (tensor for tensor in tensors if tensor.device == device),
            key=lambda tensor: -tensor.element_size(),
        )
        raw = [tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in mine]
        parts = torch.cat(raw).cpu().split([part.numel() for part in raw])
        for tensor, part in zip(mine, parts, strict=True):
            fetched[id(tensor)] = part.view(tensor.dtype).reshape(tensor.shape).tolist()
    return [fetched[id(tensor)] for tensor in tensors]


def _fetch_jax(arrays: list[Any]) -> list[Any]:
    return [array.tolist() for array in sys.modules["jax"].device_get(arrays)]


def _torch_waits(tensor: Any) -> bool:
    return tensor.device.type not in ("cpu", "meta")


def _jax_waits(array: Any) -> bool:
    if array.is_deleted():
        return False  # asking whether a donated buffer is ready crashes jaxlib 0.10
    return not array.is_ready() or any(device.platform != "cpu" for device in array.devices())


def _tensorflow_waits(tensor: Any) -> bool:
    return any(kind in (tensor.device or "") for kind in ("GPU:", "TPU:"))


def _keras_waits(variable: Any) -> bool:
    return on_device(variable.value)


_TENSORS: Final = (
    ("torch", "Tensor", _torch_waits),
    ("jax", "Array", _jax_waits),
    ("tensorflow", "Tensor", _tensorflow_waits),
    ("tensorflow", "Variable", _tensorflow_waits),
    ("keras", "Variable", _keras_waits),
)
_FETCHERS: Final = (("torch", "Tensor", _fetch_torch), ("jax", "Array", _fetch_jax))
