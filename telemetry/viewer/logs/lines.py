"""The lines of a log file, plain or gzipped, in constant memory."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from telemetry.viewer.logs.inflating import Inflater

CHUNK: Final = 1 << 18
"""Bytes that are read at once."""
MAGIC: Final = b"\x1f\x8b"
"""What a gzip file begins with."""
GZIPPED: Final = "it is gzipped: let its name end in .jsonl.gz"
"""Why such a file's lines are no records, where its name does not say so."""
LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes; a longer one is no record."""

OnBad: TypeAlias = Callable[[int, str], object]
"""Called with the number of a line that is no record, counted from 1, and why."""


class Line(NamedTuple):
    """A line of a log.

    Attributes:
        source: The file.
        number: Which line it is, counted from 1.
        text: Without its end.
        offset: Where it begins, in bytes of what the file holds.
    """

    source: Path
    number: int
    text: bytes
    offset: int = 0


class Splitter:
    r"""Makes lines of pieces.

    Example:
        >>> lines = Splitter(Path("run.jsonl"), print)
        >>> [line.text for line in lines.feed(b"one\ntw")], [*lines.feed(b"o\n")][0].number
        ([b'one'], 2)

    Args:
        source: The file.
        on_bad: Called for lines that are too long.
        start: Where in the file the first piece begins, in bytes.
    """

    def __init__(self, source: Path, on_bad: OnBad, *, start: int = 0) -> None:
        self._source = source
        self._on_bad = on_bad
        self._count = 0
        self._start = start
        self._begun: list[bytes] = []
        self._size = 0

    @property
    def has_part(self) -> bool:
        """Whether a line was begun that has no end."""
        return self._size > 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that end in ``data``."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            yield from self.end()
        self._add(rest)

    def end(self) -> Iterator[Line]:
        """What was begun, as a line."""
        self._count += 1
        text, size, start = b"".join(self._begun), self._size, self._start
        self._begun, self._size = [], 0
        self._start += size + 1
        if size > LONGEST_LINE:
            self._on_bad(self._count, f"longer than {LONGEST_LINE:,} bytes")
        else:
            yield Line(self._source, self._count, clean(text, start), start)

    def give_up(self, reason: str) -> None:
        """Leave what was begun, and what comes after it."""
        self._begun, self._size = [], 0
        self._on_bad(self._count + 1, reason)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LONGEST_LINE:
            self._begun = []
        elif piece:
            self._begun.append(piece)


def read_lines(
    path: Path, on_bad: OnBad, progress: Callable[[int], object] | None = None
) -> Iterator[Line]:
    """Read a file, the last line as well if it has no end.

    A gzip file that is still written, or whose writer was killed, is read as far as it goes; one
    that is damaged as far as it is whole.

    Args:
        path: A file, compressed if its name ends in ``.gz``.
        on_bad: Called for lines that cannot be read.
        progress: Called with the number of bytes of each piece of the file.

    Raises:
        OSError: It cannot be read.
    """
    lines = Splitter(path, on_bad)
    inflater = Inflater() if is_gzip(path) else None
    with path.open("rb") as file:
        while data := file.read1(CHUNK):  # of a pipe what is there
            for piece in [data] if inflater is None else inflater.feed(data):
                yield from lines.feed(piece)
            if progress is not None:
                progress(len(data))
            if inflater is not None and inflater.damage:
                lines.give_up(inflater.damage)
                return
    if lines.has_part:
        yield from lines.end()


def clean(text: bytes, offset: int) -> bytes:
    r"""A line without what some systems put before the first one and at the end of each.

    Args:
        text: The line.
        offset: Where in the file it begins.

    Example:
        >>> clean(b"\xef\xbb\xbf{}\r", 0)
        b'{}'
    """
    return (text if offset else text.removeprefix(codecs.BOM_UTF8)).removesuffix(b"\r")


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed, by its name.

    Example:
        >>> is_gzip(Path("run.jsonl.gz"))
        True
    """
    return path.suffix.lower() == ".gz"
