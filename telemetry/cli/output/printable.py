"""Text of others that is shown on a terminal."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any, Final

import click

EXACT: Final = 2**53
"""Up to which a float has room for every integer."""


def printable(text: str) -> str:
    r"""A text in one line, in which a terminal's control characters are written as escapes.

    Example:
        >>> print(printable("a\x1b[31m"))
        a\x1b[31m
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    r"""The same of a text of several lines, which stay lines.

    Example:
        >>> print(printable_lines("a\x07\nb"))
        a\x07
        b
    """
    return "\n".join(map(printable, text.split("\n")))


def shell_word(text: str) -> str:
    r"""A text as a word of bash or zsh, printable whatever is in it.

    Example:
        >>> print(shell_word("my run.jsonl"), shell_word("it's\x1b[31m.jsonl"))
        'my run.jsonl' $'it\x27s\x1b[31m.jsonl'
    """
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_shell_escaped, text))}'"


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


def print_json(rows: list[Any]) -> None:
    """Print a list as JSON, on a terminal without what could command it.

    Args:
        rows: What `orjson` has a form for.
    """
    import orjson  # noqa: PLC0415 -- most of what is printed is none

    text = orjson.dumps(rows, option=orjson.OPT_INDENT_2)
    if sys.stdout.isatty():
        text = b"\n".join(map(printable_json, text.split(b"\n")))
    click.echo(text)


def _shell_escaped(one: str) -> str:
    if one.isprintable() and one not in "'\\":
        return one
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(one))


def _escaped(one: str) -> str:
    if one.isprintable() or one == "\t":
        return one
    units = one.encode("utf-16-be").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
