"""On which lines of a TOML file its tables and keys begin, which `tomllib` does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any


class TomlLines:
    r"""The lines of a file that is valid TOML.

    Found by reading it statement by statement: as many lines as it takes to be valid TOML.

    Args:
        text: The file.
        array: The name of the array of tables in it.

    Example:
        >>> lines = TomlLines('[[rule]]\nname = "a"\n\n[[rule]]\nname = "b"', "rule")
        >>> lines.of_table(1), lines.of_key(0, "name")
        (4, 2)
    """

    def __init__(self, text: str, array: str) -> None:
        self._array = array
        self._keys: dict[tuple[int, str], int] = {}
        self._tables: dict[int, int] = {}
        self._top: dict[str, int] = {}
        self._table: int | None = None  # of the array, the one that is being read
        self._is_top = True
        begin, lines = 0, text.split("\n")  # and nowhere else, as TOML does
        for end in range(1, len(lines) + 1):
            statement = "\n".join(lines[begin:end])
            read = _read(statement)
            if read is None:
                continue  # in the middle of something of several lines
            if statement.lstrip().startswith("["):
                self._note_header(read, begin + 1)
            else:
                self._note_keys(read, begin + 1)
            begin = end

    def of_table(self, index: int) -> int:
        """The line on which a table of the array begins, counted from 1."""
        return self._tables[index]

    def of_key(self, index: int, key: str) -> int:
        """The line on which a key of a table begins; that of the table if it has no such key."""
        return self._keys.get((index, key), self._tables[index])

    def of_top(self, key: str) -> int:
        """The line on which a key beside the array begins."""
        return self._top[key]

    def _note_header(self, read: Mapping[str, Any], line: int) -> None:
        ((key, value),) = read.items()
        self._is_top = False
        self._top.setdefault(key, line)
        if key != self._array:
            self._table = None
        elif isinstance(value, list):
            self._table = len(self._tables)
            self._tables[self._table] = line
        elif self._tables:
            # A table in the one that came last: what follows belongs to it.
            last = len(self._tables) - 1
            self._keys.setdefault((last, next(iter(value), "")), line)
            self._table = None

    def _note_keys(self, read: Mapping[str, Any], line: int) -> None:
        for key, value in read.items():
            if self._table is not None:
                self._keys.setdefault((self._table, key), line)
            elif self._is_top:
                self._top.setdefault(key, line)
                if key == self._array and isinstance(value, list):
                    self._note_inline(value, line)

    def _note_inline(self, tables: Sequence[Any], line: int) -> None:
        for index, table in enumerate(tables):
            self._tables[index] = line
            for key in table if isinstance(table, dict) else ():
                self._keys[index, key] = line


def _read(text: str) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
