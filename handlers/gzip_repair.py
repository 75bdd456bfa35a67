"""Make a gzip file whole again whose last writer was killed."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

CHUNK: Final = 1 << 18
FLUSHED: Final = b"\x00\x00\xff\xff"
"""What a sync flush ends with (RFC 1951, 3.2.4: an empty stored block)."""

GZIP: Final = 31
"""The ``wbits`` of zlib that mean gzip's header and trailer."""

OURS: Final = b'{"timestamp":"'
"""What the first line of a member of ours begins with."""


class _Progress(NamedTuple):
    """How far a member has been decompressed."""

    inflater: Any
    checksum: int = 0
    size: int = 0
    last: bytes = b""
    lines: int = 0
    head: bytes = b""

    def read(self, data: bytes) -> _Progress:
        text = self.inflater.decompress(data)
        return _Progress(
            self.inflater,
            zlib.crc32(text, self.checksum),
            self.size + len(text),
            text[-1:] or self.last,
            self.lines + text.count(b"\n"),
            (self.head + text)[: len(OURS)],
        )


class _Stretch(NamedTuple):
    """A chunk of a member in which it may have been flushed, and the progress before it."""

    position: int
    data: bytes
    before: _Progress
    flushes: list[int]


def ending(checksum: int, size: int) -> bytes:
    """What makes a gzip member whole after a sync flush: an empty last block and the trailer."""
    return b"\x03\x00" + struct.pack("<LL", checksum, size & 0xFFFFFFFF)


def repair(descriptor: int) -> int:
    """Cut a gzip file off after its last whole line, and end its last member there.

    Reads the whole file once. Nothing is cut but a line of which a part is missing.

    Args:
        descriptor: Of the file, open for reading and appending.

    Returns:
        The file's size afterwards, in bytes.

    Raises:
        OSError: It is no gzip file, is damaged, or its torn end is not of our making.
    """
    start, size = 0, os.fstat(descriptor).st_size
    while start < size:
        try:
            end, stretches, progress = _scan(descriptor, start)
        except zlib.error as damage:
            _refuse(f"it is no whole gzip file ({damage})", damage)
        if end is None:
            return _cut(descriptor, start, stretches, progress)
        start = end
    return start


def _scan(descriptor: int, start: int) -> tuple[int | None, list[_Stretch], _Progress]:
    """Read one member: its end, or what is needed to find a place to cut."""
    progress = _Progress(zlib.decompressobj(GZIP))
    # The last two will do: the four bytes are found by chance once in four billion.
    stretches: list[_Stretch] = []
    tail = b""
    for position, data in _chunks(descriptor, start):
        flushes = [index - len(tail) for index in _ends(tail + data)]
        if flushes:
            before = progress._replace(inflater=progress.inflater.copy())
            stretches = [*stretches[-1:], _Stretch(position, data, before, flushes)]
        progress = progress.read(data)
        if progress.inflater.eof:
            unused: bytes = progress.inflater.unused_data
            return position + len(data) - len(unused), [], progress
        tail = data[1 - len(FLUSHED) :]
    return None, stretches, progress


def _cut(descriptor: int, start: int, stretches: list[_Stretch], progress: _Progress) -> int:
    # The last place that looks like a flush nearly always is one.
    for stretch in reversed(stretches):
        for index in reversed(stretch.flushes):
            last_block = _ending_at(stretch, index)
            if last_block is not None:
                end: int = stretch.position + index
                os.ftruncate(descriptor, end)
                write_all(descriptor, last_block)
                return end + len(last_block)
    whole_line = progress.lines == 1 and progress.last == b"\n"
    first_write = progress.lines == 0 or whole_line  # ours is flushed after each line
    if not (first_write and OURS.startswith(progress.head)):
        _refuse("its end is torn, and was not written by this handler")
    os.ftruncate(descriptor, start)
    return start


def _ending_at(stretch: _Stretch, index: int) -> bytes | None:
    """The ending that makes the member whole if it is cut at ``index``, None if nothing does."""
    before = stretch.before._replace(inflater=stretch.before.inflater.copy())
    progress = before.read(stretch.data[:index])
    last_block = ending(progress.checksum, progress.size)
    try:
        rest = progress.inflater.decompress(last_block)
    except zlib.error:
        return None  # the four bytes were part of the compressed data
    whole = progress.inflater.eof and not rest and progress.last == b"\n"
    return last_block if whole else None


def _ends(data: bytes) -> list[int]:
    ends = []
    index = data.find(FLUSHED)
    while index >= 0:
        ends.append(index + len(FLUSHED))
        index = data.find(FLUSHED, index + 1)
    return ends


def _chunks(descriptor: int, position: int) -> Iterator[tuple[int, bytes]]:
    while data := os.pread(descriptor, CHUNK, position):
        yield position, data
        position += len(data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write until nothing is left."""
    while data:
        data = data[os.write(descriptor, data) :]


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise OSError(errno.EINVAL, f"{reason}; move it away") from cause
