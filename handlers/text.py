"""Values as text for a person to read, on one line, whatever they contain."""

from __future__ import annotations

import re
from typing import Any, Final

from telemetry.values import to_python

MAX_VALUE: Final = 300
"""Characters of one value."""
MAX_ITEMS: Final = 8
"""Items of a list."""
MAX_DEPTH: Final = 4
"""Lists within lists."""
MAX_DURATION: Final = 2**63
"""Nanoseconds; more than that is no duration."""

# Control characters of both kinds, line separators, marks that reorder text, lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MILLISECOND: Final = 1_000_000
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0


def escape(text: str) -> str:
    r"""Write out what would move the cursor, colour the terminal or turn the text around.

    Example:
        >>> print(escape("run\n\x1b[31mred"))
        run\n\x1b[31mred
    """
    return _UNSAFE.sub(_written_out, text)


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters.

    Example:
        >>> shorten("accuracy", 5)
        'accu…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def value_text(value: object) -> str:
    """A measurement or a value of the metadata; a tensor is read.

    Floats have five significant digits, which is what a person compares; NaN and the infinities
    are ``nan``, ``inf`` and ``-inf``. Of a list, the first eight items are shown, four levels deep.
    Nothing is ever raised, whatever methods the value has.

    Example:
        >>> value_text(2.54321), value_text(2e-4), value_text(1e-7), value_text(60000)
        ('2.5432', '0.0002', '1e-07', '60000')
    """
    return shorten(escape(_text(to_python(value))), MAX_VALUE)


def duration_text(nanoseconds: object) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> duration_text(1_200_000_000), duration_text(2_718_000_000_000), duration_text(4_200_000)
        ('1.2s', '45.3m', '4.2ms')
    """
    number = to_python(nanoseconds)
    if type(number) not in (int, float) or not abs(number) < MAX_DURATION:
        return value_text(number)
    seconds = number / 1e9
    if round(seconds, 1) >= _HOUR:
        return f"{seconds / _HOUR:.1f}h"
    if round(seconds, 1) >= _MINUTE:
        return f"{seconds / _MINUTE:.1f}m"
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1e3:.3g}ms" if number >= _MILLISECOND else f"{seconds * 1e6:.3g}us"


def name_text(name: object) -> str:
    """The key of a measurement or of the metadata, which can be any object."""
    return escape(_printed(name))


def error_text(error: object) -> str:
    """An exception as the last line of a traceback has it, or whatever else is given."""
    if issubclass(type(error), BaseException):
        error = f"{_type_name(error)}: {_printed(error)}".removesuffix(": ")
    return value_text(error)


def _text(value: object, depth: int = MAX_DEPTH) -> str:
    try:
        return _form(value, depth)
    except Exception:
        return _printed(value)  # one hostile item must not spoil those beside it


def _form(value: Any, depth: int) -> str:
    kind = type(value)  # not isinstance(), which asks the value's own __class__
    if issubclass(kind, float):
        return float.__format__(value, ".5g")
    if issubclass(kind, int) and kind is not bool:
        return _integer(int.__int__(value))
    if not issubclass(kind, list | tuple):
        return _printed(value)
    if depth == 0:
        return "[…]"
    items = [_text(item, depth - 1) for item in value[:MAX_ITEMS]]
    return f"[{', '.join(items)}{', …' if len(value) > MAX_ITEMS else ''}]"


def _integer(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # beyond the interpreter's limit of digits
        return f"<int of {value.bit_length()} bits>"


def _printed(value: object) -> str:
    try:
        return str.__str__(str(value))  # a __str__ may return a subclass, with its own methods
    except Exception:
        return f"<unprintable {_type_name(value)} object>"


def _type_name(value: object) -> str:
    try:
        return str.__str__(type(value).__name__)
    except Exception:  # a metaclass can refuse even this
        return "nameless"


def _written_out(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
