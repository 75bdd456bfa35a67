"""The last lines of a file, read from its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from telemetry.viewer.logs.lines import LONGEST_LINE, clean

CHUNK: Final = 1 << 16


def last_lines(
    path: Path, count: int, wanted: Callable[[bytes, int], bool]
) -> tuple[list[bytes], int]:
    r"""The last lines that are wanted, without reading what is before them.

    Args:
        path: A file that is not compressed.
        count: How many there are to be at most.
        wanted: Whether a line is, which begins at some byte.

    Returns:
        The lines in their order, and where in the file the last line ends. What was begun after
        it has no end yet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     log = Path(directory, "run.jsonl")
        ...     _ = log.write_bytes(b"one\ntwo\nthree\nfo")
        ...     last_lines(log, 1, lambda line, _: b"w" in line)
        ([b'two'], 14)
    """
    with path.open("rb") as file:
        end = _end_of_lines(file)
        found: deque[bytes] = deque()
        for line, start in _backwards(file, end) if count else ():
            text = clean(line, start)
            if wanted(text, start):
                found.appendleft(text)
            if len(found) == count:
                break
    return list(found), end


def _end_of_lines(file: BufferedReader) -> int:
    """Where the last line's end is, 0 if there is none."""
    for start, data in _chunks(file, file.seek(0, 2)):
        place = data.rfind(b"\n")
        if place >= 0:
            return start + place + 1
    return 0


def _backwards(file: BufferedReader, end: int) -> Iterator[tuple[bytes, int]]:
    """The lines before ``end`` and where they begin, the last first; not those too long."""
    begun: deque[bytes] = deque()
    size = 0
    for start, data in _chunks(file, max(0, end - 1)):
        first, *lines = data.split(b"\n")
        if not lines:
            size += len(first)
            begun = deque() if size > LONGEST_LINE else begun
            begun.appendleft(first)
            continue
        place = start + len(data) - len(lines[-1])
        if size + len(lines[-1]) <= LONGEST_LINE:
            yield lines[-1] + b"".join(begun), place
        for line in lines[-2::-1]:
            place -= len(line) + 1
            yield line, place
        begun, size = deque([first]), len(first)
    if end and size <= LONGEST_LINE:
        yield b"".join(begun), 0


def _chunks(file: BufferedReader, end: int) -> Iterator[tuple[int, bytes]]:
    while end > 0:
        start = max(0, end - CHUNK)
        file.seek(start)
        yield start, file.read(end - start)
        end = start
