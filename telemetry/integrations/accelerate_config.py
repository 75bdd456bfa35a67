"""The configuration of a training, as the start of its run may tell it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, Final

from telemetry.runs.command import HIDDEN, is_secret, shown_text
from telemetry.values.host import on_device, to_python
from telemetry.values.jsonable import bounded_repr

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 1000


def shown_config(config: object) -> dict[str, Any]:
    """A configuration as plain data, in which what looks like a secret is ``***``.

    Secrets are told as those of a command line are: by their names, such as ``api_key``, and their
    shapes. Models and other objects become their ``repr``. It has at most 1000 values, nested at
    most 8 deep, and 200 characters in each text.

    Args:
        config: A mapping, or an object with attributes, such as an ``argparse.Namespace``.

    Raises:
        TypeError: It is neither.

    Example:
        >>> shown_config({"lr": 0.1, "hub": {"token": "0123", "url": "https://me:pass@host"}})
        {'lr': 0.1, 'hub': {'token': '***', 'url': 'https://***@host'}}
    """
    named = config if isinstance(config, Mapping) else _attributes(config)
    if named is None:
        raise TypeError(
            f"config must be a mapping, got {bounded_repr(config)} ({type(config).__name__}). "
            "Write config={'learning_rate': 0.1}."
        )
    left = iter(range(MAX_VALUES))
    return dict(_items(named, left, MAX_DEPTH))


def _attributes(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return getattr(value, "__dict__", None)


def _items(
    named: Mapping[Any, Any], left: Iterator[int], depth: int
) -> Iterator[tuple[str, object]]:
    for name, value in named.items():
        if next(left, None) is None:
            return
        key = shown_text(str(name))
        is_hidden = is_secret(key) and not (value is None or isinstance(value, bool))
        yield key, HIDDEN if is_hidden else _plain(value, left, depth - 1)


def _plain(value: object, left: Iterator[int], depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, left, depth)
    if isinstance(value, str | os.PathLike):
        return shown_text(str(value))
    if depth and isinstance(value, Mapping):
        return dict(_items(value, left, depth))
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dict(_items(_attributes(value) or {}, left, depth))
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(part, left, depth - 1) for part in _some(value, left)]
    if hasattr(value, "dtype"):
        return _number(value)
    return shown_text(bounded_repr(value))


def _some(parts: Iterable[Any], left: Iterator[int]) -> Iterator[Any]:
    for part in islice(parts, MAX_VALUES):
        if next(left, None) is None:
            return
        yield part


def _number(value: Any) -> object:
    """A scalar of the host; of other arrays and tensors, only what they are."""
    shape = tuple(getattr(value, "shape", None) or ())
    if not shape and not on_device(value):
        number = to_python(value)
        if isinstance(number, bool | int | float | str):
            return number
    return f"{type(value).__name__} of shape {shape}"
