"""What a line of JSON says, also where its writer knew numbers that JSON has not."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

from telemetry.values import LARGEST, SMALLEST
from telemetry.viewer.logs.foreign import TOO_DEEP

_WORD: Final = re.compile(
    r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|(-?\bnan\b)|\binf(?:inity)?\b',
    re.IGNORECASE | re.DOTALL,
)
"""A string, also one without an end: it would be looked for again behind each of its quotes."""


def parse_json(text: bytes) -> Any:
    """A value of JSON, in which numbers may also be a bare ``NaN``, ``-Infinity``, ``inf``, 1e999.

    Python's own `json` writes the first two and programs in C the third; the engine takes all.

    Args:
        text: The value, as UTF-8.

    Raises:
        ValueError: It is none, or is nested deeper than this stack has room for.

    Example:
        >>> parse_json(b'{"loss": NaN, "grad_norm": -inf, "note": "inf"}')
        {'loss': nan, 'grad_norm': -inf, 'note': 'inf'}
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as refused:
        try:
            return _parse_others(text.decode())
        except RecursionError:
            raise ValueError(TOO_DEEP) from None
        except ValueError:
            raise refused from None


def _parse_others(text: str) -> Any:
    found = json.loads(_WORD.sub(_named, text), parse_int=_integer)
    json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is refused
    return found


def _named(word: re.Match[str]) -> str:
    string, is_nan = word.groups()
    return string or ("NaN" if is_nan else "Infinity")


def _integer(digits: str) -> float:
    """An integer of 64 bits; a longer one is a float, as the first parser has it."""
    number = int(digits) if len(digits) <= len(str(LARGEST)) else LARGEST + 1
    return number if SMALLEST <= number <= LARGEST else float(digits)
