"""Text of others that is shown on a terminal."""

from __future__ import annotations

from typing import Final

EXACT: Final = 2**53
"""Up to which a float has room for every integer."""


def printable(text: str) -> str:
    r"""A text in one line, in which a terminal's control characters are written as escapes.

    Example:
        >>> print(printable("a\x1b[31m"))
        a\x1b[31m
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def place_text(number: float) -> str:
    """The number of a step, in full.

    Example:
        >>> place_text(1_234_567.0), place_text(0.5)
        ('1,234,567', '0.5')
    """
    is_whole = float(number).is_integer() and abs(number) < EXACT
    return f"{number:,.0f}" if is_whole else f"{number:.15g}"


def printable_json(text: bytes) -> bytes:
    r"""The same of a line of JSON, which stays the JSON that it is.

    Control characters below U+0020 cannot be in it. Those above ASCII, such as U+009B or U+202E,
    can only be in strings.

    Example:
        >>> print(printable_json('{"a": "\x9b31m"}'.encode()).decode())
        {"a": "\u009b31m"}
    """
    if text.isascii():
        return text.replace(b"\x7f", b"\\u007f")
    shown = text.decode(errors="replace")
    return "".join(map(_escaped, shown)).encode()


def _escaped(one: str) -> str:
    if one.isprintable() or one == "\t":
        return one
    units = one.encode("utf-16-be").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
