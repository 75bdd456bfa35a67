"""Any value as something that JSON has a form for."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import uuid
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from telemetry.span_context import SpanContext
from telemetry.values.host import to_python

MAX_DEPTH: Final = 32
MAX_REPR: Final = 1000
SMALLEST: Final = -(2**63)
LARGEST: Final = 2**64 - 1


def jsonable(value: object) -> Any:
    """Turn any value into dictionaries, lists, strings, numbers, booleans and None.

    - NaN and the infinities are the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``;
    - integers beyond 64 bits are strings of digits;
    - arrays and tensors are numbers and lists (see `to_python`), enumerations their value,
      dataclasses dictionaries, paths and UUIDs strings, dates ISO 8601;
    - a `SpanContext` is a dictionary of strings of 16 hexadecimal digits, because a JSON number
      of 64 bits is not safe in every reader;
    - lone surrogates are escaped, keys that are no strings become ones;
    - anything else, and what is nested deeper than 32 levels or contains itself, is its ``repr``,
      of at most 1000 characters.

    Nothing is ever raised.

    Example:
        >>> jsonable({"loss": float("nan"), "norms": (1, 2.5), "seed": 2**70})
        {'loss': 'NaN', 'norms': [1, 2.5], 'seed': '1180591620717411303424'}
    """
    return _convert(value, MAX_DEPTH, ())


def bounded_repr(value: object) -> str:
    """``repr(value)``, cut to 1000 characters, whatever the object's own ``__repr__`` does."""
    try:
        text = _clean(repr(value))
    except Exception:
        text = f"<unprintable {_type_name(value)} object>"
    return text if len(text) <= MAX_REPR else text[: MAX_REPR - 1] + "…"


def _type_name(value: object) -> str:
    try:
        return type(value).__name__
    except Exception:  # a metaclass can refuse even this
        return "nameless"


def _convert(value: object, depth: int, above: tuple[int, ...]) -> Any:
    try:
        return _form(value, depth, above)
    except Exception:
        return bounded_repr(value)  # one hostile value must not spoil those beside it


def _form(value: object, depth: int, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if type(value) is SpanContext:
        return {k: None if v is None else f"{v:016x}" for k, v in value._asdict().items()}
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    if depth == 0 or id(value) in above:
        return bounded_repr(value)
    above = (*above, id(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _convert(item, depth - 1, above) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_convert(item, depth - 1, above) for item in value]
    read = to_python(value)
    return bounded_repr(value) if read is value else _convert(read, depth - 1, above)


def _scalar(value: object) -> Any:
    """The JSON scalar of a value, None if it is not one."""
    match value:
        case Enum():
            return _convert(value.value, 1, ())
        case str():
            return _clean(value)
        case int():
            number = int.__int__(value)  # of a subclass, its own operators are not to be trusted
            return number if SMALLEST <= number <= LARGEST else _digits(number)
        case float():
            real = float.__float__(value)
            return real if math.isfinite(real) else _nonfinite(real)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case os.PathLike():
            return _clean(os.fsdecode(value))
        case _:
            return None


def _nonfinite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # beyond the interpreter's limit of digits
        return f"<int of {value.bit_length()} bits>"


def _key(key: object) -> str:
    form = _convert(key, 0, ())
    return form if isinstance(form, str) else bounded_repr(form)


def _clean(text: str) -> str:
    exact = str.__str__(text)  # a subclass may have a __str__ of its own
    return exact.encode("utf-8", "backslashreplace").decode("utf-8")
