"""Log files that are followed while they are written, as ``tail -F`` follows them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.entries import Entry, entries_of
from telemetry.viewer.logs.inflating import Inflater
from telemetry.viewer.logs.lines import CHUNK, Line, OnBad, Splitter, is_gzip
from telemetry.viewer.logs.read_place import ReadPlace

HEAD: Final = 64
"""Bytes by which a compressed file is known again: they hold the time of its first record."""

REMEMBERED: Final = 100_000
"""The last lines that were given, by which a compressed file that was mended is known again."""


class Given:
    """Which lines of a file were given, to leave them out when it is read once more.

    Of those that are remembered, the text is compared: what stood in a torn end, and was cut off
    when that was mended, is not there, and what comes in its place is new.

    Example:
        >>> given = Given()
        >>> given.add(b"one"), given.add(b"two"), given.begin_again()
        (None, None, None)
        >>> given.has(b"one"), given.has(b"three"), given.has(b"two")
        (True, False, False)
    """

    def __init__(self) -> None:
        self._hashes: deque[int] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._expected: deque[int] = deque()
        self._older = 0

    def add(self, text: bytes) -> None:
        """Remember a line."""
        self._hashes.append(hash(text))
        self._count += 1

    def begin_again(self) -> None:
        """Begin with the first line of the file again."""
        self._older = self._count - len(self._hashes)
        self._expected, self._hashes = self._hashes, deque(maxlen=REMEMBERED)
        self._count = 0

    def forget(self) -> None:
        """Begin with the first line of another file."""
        self.begin_again()
        self._expected.clear()
        self._older = 0

    def has(self, text: bytes) -> bool:
        """Whether the next line of the file was given before."""
        if self._older:
            self._older -= 1
            return True
        if self._expected and self._expected.popleft() == hash(text):
            return True
        self._expected.clear()
        return False


class Followed:
    """One file that is followed by its name.

    Another file under the name is read from its start, and so is one that was cut off or written
    anew; a file that is away is waited for. A line is given when its end is there.

    Args:
        path: The file, which need not be there yet.
        on_bad: Called for lines that cannot be read.
        position: Where to begin in a file that is there and not compressed, in bytes.

    Example:
        >>> list(Followed(Path("not/there/yet.jsonl"), print).poll())
        []
    """

    def __init__(self, path: Path, on_bad: OnBad, *, position: int = 0) -> None:
        self.path = path
        self.on_bad = on_bad
        self._file: FileIO | None = None
        self._identity: tuple[int, int] | None = None
        self._lines = Splitter(path, on_bad)
        self._inflater: Inflater | None = None
        self._head = b""
        self._place = ReadPlace()
        self._given = Given()
        if position:
            self._open(position)

    def poll(self) -> Iterator[Line]:
        """The lines that are whole by now.

        Raises:
            OSError: The file cannot be read, for another reason than that it is not there.
        """
        found = self._find()
        if self._file is not None:
            yield from self._rest(self._file)
        if found is not None and found != self._identity:
            self.close()
            self._open()
            if self._file is not None:
                yield from self._rest(self._file)

    def rest(self) -> Iterator[Line]:
        """What was begun and has no end yet, as a line."""
        if self._lines.has_part:
            yield from self._lines.end()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _find(self) -> tuple[int, int] | None:
        """Which file the name stands for now."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        found = (status.st_dev, status.st_ino)
        file = self._file if found == self._identity else None
        if file is not None and self._place.was_rewritten(file):
            self._restart(file)
        return found

    def _open(self, position: int = 0) -> None:
        try:
            file = self.path.open("rb", buffering=0)  # a buffer would hide what was rewritten
        except FileNotFoundError:
            return  # it was moved away in between
        status = os.fstat(file.fileno())
        self._file = file
        self._identity = (status.st_dev, status.st_ino)
        self._head = b""
        self._restart(file)
        self._place.go_to(file, position)
        self._lines = Splitter(self.path, self.on_bad, start=position)

    def _restart(self, file: FileIO) -> None:
        """Read from the start; what is known of a compressed file is not given again.

        The handler ``jsonl`` cuts off the torn end of a compressed file, and goes on behind it.
        """
        file.seek(0)
        head = file.read(HEAD)
        file.seek(0)
        same = is_gzip(self.path) and head and self._head[: len(head)] == head[: len(self._head)]
        if same and self._head:
            self._given.begin_again()
        else:
            self._given.forget()
        self._head, self._place = head, ReadPlace()
        self._lines = Splitter(self.path, self.on_bad)
        self._inflater = Inflater() if is_gzip(self.path) else None

    def _rest(self, file: FileIO) -> Iterator[Line]:
        whole = self._is_whole()
        yield from self._read(file)
        if whole and not self._is_whole():
            self._restart(file)  # its end may have been mended
            yield from self._read(file)
            if self._inflater and self._inflater.damage:
                self._lines.give_up(self._inflater.damage)

    def _is_whole(self) -> bool:
        return self._inflater is None or not self._inflater.damage

    def _read(self, file: FileIO) -> Iterator[Line]:
        while data := file.read(CHUNK):
            self._head = self._head or data[:HEAD]
            self._place.add(data)
            if self._inflater is None:
                yield from self._lines.feed(data)
                continue
            for piece in self._inflater.feed(data):
                yield from self._new(self._lines.feed(piece))

    def _new(self, lines: Iterator[Line]) -> Iterator[Line]:
        for line in lines:
            known = self._given.has(line.text)
            self._given.add(line.text)
            if not known:
                yield line


def follow_entries(
    paths: Iterable[str | os.PathLike[str]],
    *,
    wait: Callable[[], bool],
    on_bad: OnBad | None = None,
) -> Iterator[Entry]:
    """Read logs, and go on while they are written.

    Args:
        paths: The files, which need not be there yet.
        wait: Called when there is nothing more; whether to look again.
        on_bad: Called with the number of each line that is no record, and why. By default, a
            `telemetry.viewer.BadLinesWarning` names those of a file at the end.

    Raises:
        OSError: A file cannot be read, for another reason than that it is not there.

    Example:
        >>> list(follow_entries(["not/there/yet.jsonl"], wait=lambda: False))
        []
    """
    counted = [BadLines(Path(path)) for path in paths]
    files = [Followed(bad.path, bad if on_bad is None else on_bad) for bad in counted]
    try:
        yield from _entries(files, wait)
    finally:
        for file in files:
            file.close()
    for bad in counted:
        bad.warn()


def _entries(files: list[Followed], wait: Callable[[], bool]) -> Iterator[Entry]:
    while True:
        for file in files:
            yield from entries_of(file.poll(), file.on_bad)
        if not wait():
            return
