"""Numbers read back from plain data, with the place of what is wrong in every message."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from regularizers.checks import describe

NONFINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How JSON has what it has no number for; the integers beyond 64 bits are strings of digits."""

_DIGITS: Final = re.compile(r"-?[0-9]{1,4300}")  # more than that, int() refuses


class Node:
    """A dictionary in the data that `CustomLossOutput.from_dict` was given.

    Args:
        data: What is there.
        path: The keys that lead to it.

    Raises:
        TypeError: It is no dictionary.
    """

    def __init__(self, data: object, path: tuple[str, ...] = ()) -> None:
        if not isinstance(data, Mapping):
            raise TypeError(f"{_place(path)} must be a dictionary, got {describe(data)}.")
        for key in data:
            if not isinstance(key, str):
                raise TypeError(f"{_place(path)} has the key {describe(key)}. Keys are strings.")
        self._data: Mapping[str, Any] = data
        self._path = path

    def check_keys(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Raise ValueError for a required key that is missing, and for one that is not allowed."""
        required, optional = tuple(required), tuple(optional)
        for key in required:
            if key not in self._data:
                raise ValueError(
                    f"{_place((*self._path, key))} is missing. Required: {', '.join(required)}."
                )
        for key in self._data:
            if key not in required and key not in optional:
                raise ValueError(
                    f"{_place((*self._path, key))} is unknown. "
                    f"Allowed: {', '.join((*required, *optional))}."
                )

    def number(self, key: str) -> float:
        """The number of a key.

        Raises:
            TypeError: It is neither a number nor a string.
            ValueError: It is a string that stands for none.
        """
        return _read_number(self._data[key], (*self._path, key))

    def number_or_none(self, key: str) -> float | None:
        """The same, and None for a key that is absent or has null."""
        return None if self._data.get(key) is None else self.number(key)

    def numbers(self) -> dict[str, float]:
        """The numbers of all keys."""
        return {key: self.number(key) for key in self._data}

    def child(self, key: str) -> Node:
        """The dictionary of a key.

        Raises:
            TypeError: It is none.
        """
        return Node(self._data[key], (*self._path, key))

    def children(self) -> dict[str, Node]:
        """The dictionaries of all keys."""
        return {key: self.child(key) for key in self._data}


def _read_number(value: Any, path: tuple[str, ...]) -> float:
    if isinstance(value, float | int):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{_place(path)} must be a number, got {describe(value)}.")
    if value in NONFINITE:
        return NONFINITE[value]
    if _DIGITS.fullmatch(value):
        return int(value)
    raise ValueError(
        f"{_place(path)} must be a number, got {value!r}. "
        f"Of strings, those of digits are allowed, and {', '.join(NONFINITE)}."
    )


def _place(path: tuple[str, ...]) -> str:
    return "output" + "".join(f"[{key!r}]" for key in path)
