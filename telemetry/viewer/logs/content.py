"""The bytes of a log file as far as they were read, plain or gzipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from telemetry.viewer.logs.inflating import Inflater
from telemetry.viewer.logs.lines import LONGEST_LINE, is_gzip
from telemetry.viewer.logs.read_place import ReadPlace

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
        ...     print(list(content.whole_lines()), content.unread)
        [b'one\ntwo\n'] 0
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = ReadPlace()
        self._inode: int | None = None
        self._looked_at: tuple[int, int] | None = None
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

    @property
    def unread(self) -> int:
        """How many bytes of the file were not read yet; of one that is gone none can be."""
        try:
            return max(self.path.stat().st_size - self._place.offset, 0)
        except FileNotFoundError:
            return 0

    def has_begun_anew(self) -> bool:
        """Whether the file is another than the one that was read, or was cut off or written anew.

        Not if it is gone. Only one that has changed is opened.
        """
        try:
            now = self.path.stat()
            state = (now.st_size, now.st_mtime_ns)
            if self._inode is None or (now.st_ino, state) == (self._inode, self._looked_at):
                return False
            with self.path.open("rb", buffering=0) as file:
                anew = now.st_ino != self._inode or self._place.was_rewritten(file)
        except FileNotFoundError:
            return False
        self._looked_at = None if anew else state
        return anew

    def whole_lines(self, most: int | None = None) -> Iterator[bytes]:
        """The lines that have an end by now, each piece some lines.

        Args:
            most: How many bytes of the file are read, None for all; further ones are for the next
                call.

        Raises:
            OSError: The file cannot be read.
        """
        with self.path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._inode not in (None, inode):
                return  # it has taken the place of the other just now: see has_begun_anew
            self._inode = inode
            file.seek(self._place.offset)
            end = os.fstat(file.fileno()).st_size  # what comes meanwhile is for the next call
            if most is not None:
                end = min(end, self._place.offset + most)
            while data := file.read(max(min(CHUNK, end - self._place.offset), 0)):
                self._place.add(data)
                for text in self._inflated(data):
                    behind = text.rfind(b"\n") + 1
                    if behind:
                        yield b"".join((self._rest, memoryview(text)[:behind]))
                        self._rest = text[behind:]
                    elif len(self._rest) <= LONGEST_LINE:  # a longer line is none anyway
                        self._rest += text

    def lines(self) -> Iterator[bytes]:
        """All lines by now, the last of which may have no end: it is being written, or was torn."""
        yield from self.whole_lines()
        if self._rest:
            yield self._rest

    def _inflated(self, data: bytes) -> Iterable[bytes]:
        return [data] if self._inflater is None else self._inflater.feed(data)
