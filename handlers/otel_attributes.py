"""Measurements and metadata as attributes: values of the few types that OpenTelemetry has."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from handlers.text import name_text, shorten
from telemetry import SpanContext
from telemetry.values import jsonable, to_python

Attribute: TypeAlias = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

MAX_ATTRIBUTES: Final = 100
"""Of one span or log record; the SDK's own limit is 128."""
MAX_TEXT: Final = 1000
MAX_STACK: Final = 16_000
MAX_ITEMS: Final = 64
CONTEXT: Final = "telemetry_span_context"
CAUSE: Final = ("kind", "reason", "stacktrace")
MAX_NAMES: Final = 4096

_HIDDEN: Final = frozenset({CONTEXT})

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_FORMS: Final = (
    (frozenset({bool}), bool),
    (frozenset({int}), int),
    (frozenset({int, float}), float),
    (frozenset({str}), str),
)


def attributes_of(
    *mappings: Mapping[str, Any], without: Iterable[str] = ()
) -> dict[str, Attribute]:
    """Everything in some mappings as attributes, the later ones winning.

    Numbers, strings and lists of one of them stay what they are, NaN and infinities included;
    integers beyond 64 bits, lists with one, and all else become text of at most 1000 characters.
    What is None is left out.

    Example:
        >>> attributes_of({"loss": 2.5, "key": ("layer", "conv1"), "error": None, "seed": 2**70})
        {'loss': 2.5, 'key': ['layer', 'conv1'], 'seed': '1180591620717411303424'}
    """
    left_out = _HIDDEN.union(without)
    found: dict[str, Attribute] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            attribute = None if key in left_out else _attribute(value)
            name = _name(key) if type(key) is str else _clean(name_text(key))
            if attribute is not None and name and (len(found) < MAX_ATTRIBUTES or name in found):
                found[name] = attribute
    return found


def nanoseconds(time_ns: int) -> int:
    """A time since 1970 that can be sent: one that cannot be becomes the next that can.

    Example:
        >>> nanoseconds(-1), nanoseconds(5), nanoseconds(2**70) == 2**63 - 1
        (0, 5, True)
    """
    return min(max(time_ns, 0), _LARGEST)


def exception_attributes(metadata: Mapping[str, Any]) -> dict[str, Attribute]:
    """What the metadata of an exception event say, as OpenTelemetry's conventions name it.

    https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
    """
    reason = metadata.get("reason")
    if isinstance(reason, BaseException):
        kind = type(reason)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
    else:
        name = str(metadata.get("kind", "error"))
    message = _text(reason)
    return {
        "exception.type": name,
        "exception.message": message,
        "exception.stacktrace": _stack(metadata.get("stacktrace"), f"{name}: {message}"),
    }


def span_context_of(metadata: Mapping[str, Any]) -> SpanContext | None:
    """The place of an event's span in the tree, also where it was read from JSON.

    Example:
        >>> span_context_of({"telemetry_span_context": {"span_id": "00000000000000ff",
        ...     "parent_id": None, "trace_id": "00000000000000ff"}})
        SpanContext(span_id=255, parent_id=None, trace_id=255)
    """
    given = metadata.get(CONTEXT)
    if type(given) is SpanContext and _is_whole(*given):
        return given
    if isinstance(given, Mapping):
        try:
            given = SpanContext(given["span_id"], given["parent_id"], given["trace_id"])
        except KeyError:
            return None
    if not isinstance(given, SpanContext):
        return None
    span_id, parent_id, trace_id = map(_id, given)
    return SpanContext(span_id, parent_id, trace_id) if span_id and trace_id else None


def _is_whole(span_id: object, parent_id: object, trace_id: object) -> bool:
    return _is_id(span_id) and _is_id(trace_id) and (parent_id is None or _is_id(parent_id))


def _is_id(given: object) -> bool:
    return type(given) is int and 0 < given < 2**64


def _id(given: object) -> int | None:
    if isinstance(given, str):
        try:
            given = int(given, 16)
        except ValueError:
            return None
    return given if isinstance(given, int) and 0 < given < 2**64 else None


@lru_cache(maxsize=MAX_NAMES)
def _name(key: str) -> str:
    return _clean(name_text(key))


def _attribute(value: object) -> Attribute | None:
    # Most are one of these; a worker looks at some for every event.
    if type(value) is float or (type(value) is str and len(value) <= MAX_TEXT and value.isascii()):
        return value
    plain = to_python(value)
    if isinstance(plain, bool | float | None):
        return plain
    if isinstance(plain, int) and _fits(plain):
        return int(plain)
    if isinstance(plain, list | tuple) and len(plain) <= MAX_ITEMS and all(map(_fits, plain)):
        kinds = set(map(type, plain))
        for allowed, form in _FORMS:
            if kinds and kinds <= allowed:
                listed: Any = [_clean(item) if form is str else form(item) for item in plain]
                return listed  # type: ignore[no-any-return]  # a list of one of the allowed types
    return _text(plain)


def _fits(item: object) -> bool:
    return not isinstance(item, int) or _SMALLEST <= item <= _LARGEST


def _text(value: object) -> str:
    if isinstance(value, BaseException):
        try:
            return _clean(str(value))
        except Exception as error:
            return f"<unprintable {type(value).__name__}: {type(error).__name__}>"
    form = jsonable(value)
    return _clean(form if isinstance(form, str) else json.dumps(form, ensure_ascii=False))


def _clean(text: str, limit: int = MAX_TEXT) -> str:
    """Text that UTF-8 has a form for, of bounded length."""
    return shorten(text, limit).encode("utf-8", "backslashreplace").decode()


def _stack(frames: object, last: str) -> str:
    """A traceback as Python prints it; of a long one, the end."""
    listed = list(frames) if isinstance(frames, Sequence) and not isinstance(frames, str) else []
    if listed and all(isinstance(frame, traceback.FrameSummary) for frame in listed):
        text = "".join(traceback.format_list(listed))
    else:
        text = "" if frames is None else f"{_text(frames)}\n"
    whole = f"Traceback (most recent call last):\n{text}{last}"
    return _clean(whole[-MAX_STACK:], MAX_STACK)
