"""The bytes of a log file as far as they were read, plain or gzipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from telemetry.viewer.logs.engine import LONGEST_LINE
from telemetry.viewer.logs.inflating import Inflater
from telemetry.viewer.logs.lines import is_gzip

CHUNK: Final = 1 << 22
"""Bytes that are read at once."""


class Content:
    r"""What a file holds that was not read yet, in whole lines.

    Args:
        path: The file, compressed if its name ends in ``.gz``.

    Attributes:
        path: The file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "metrics.jsonl")
        ...     _ = path.write_bytes(b"one\ntwo\nthr")
        ...     content = Content(path)
        ...     print(list(content.whole_lines()), content.rest())
        [b'one\ntwo\n'] b'thr'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0
        self._rest = b""
        self._inflater = Inflater() if is_gzip(path) else None

    @property
    def is_plain(self) -> bool:
        """Whether the file is not compressed."""
        return self._inflater is None

    @property
    def is_damaged(self) -> bool:
        """Whether the rest of the file is no gzip, and cannot be read."""
        return self._inflater is not None and bool(self._inflater.damage)

    def skip(self, offset: int) -> None:
        """Leave what is before an offset, which follows a line's end."""
        self._offset = offset
        self._inode = self.path.stat().st_ino

    def has_begun_anew(self) -> bool:
        """Whether the file is another than the one that was read, or was cut."""
        now = self.path.stat()
        return now.st_ino != self._inode or now.st_size < self._offset

    def whole_lines(self) -> Iterator[bytes]:
        """The lines that have an end by now, each piece some lines.

        Raises:
            OSError: The file cannot be read.
        """
        with self.path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._offset)
            end = os.fstat(file.fileno()).st_size  # what comes meanwhile is for the next call
            while data := file.read(min(CHUNK, end - self._offset)):
                self._offset += len(data)
                for text in self._inflated(data):
                    piece, newline, rest = text.rpartition(b"\n")
                    if newline:
                        yield self._rest + piece + newline
                        self._rest = rest
                    elif len(self._rest) <= LONGEST_LINE:  # a longer line is none anyway
                        self._rest += rest

    def rest(self) -> bytes:
        """What follows the last line's end: a line that is being written, or was torn."""
        return self._rest

    def _inflated(self, data: bytes) -> Iterable[bytes]:
        return [data] if self._inflater is None else self._inflater.feed(data)


def ends_in_newline(path: Path) -> bool:
    """Whether the last line of a file has an end; True for an empty one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")
