"""Up to where a file was read, and whether what was read is still there."""

from __future__ import annotations

from io import BytesIO, FileIO
from typing import Final

KNOWN_BY: Final = 64
"""Bytes before the place that are compared: they hold the time of a record."""


class ReadPlace:
    r"""The place up to which a file was read.

    A file can be cut off, or be written anew in place and outgrow what it was: its name, its number
    and perhaps its size tell nothing of that.

    The file must have no buffer, which would give what was there before.

    Attributes:
        offset: How many bytes are before it.

    Example:
        >>> place = ReadPlace()
        >>> place.add(b"one\ntwo\n")
        >>> place.was_rewritten(BytesIO(b"one\ntwo\nthree\n"))
        False
        >>> place.was_rewritten(BytesIO(b"1\n2\n3\n4\n5\n"))
        True
    """

    def __init__(self) -> None:
        self.offset = 0
        self._before = b""

    def add(self, data: bytes) -> None:
        """Go on behind what was read."""
        self.offset += len(data)
        self._before = (self._before + data[-KNOWN_BY:])[-KNOWN_BY:]

    def go_to(self, file: FileIO, offset: int) -> None:
        """Go to another place in a file; the file goes there too."""
        file.seek(max(0, offset - KNOWN_BY))
        self._before = file.read(min(offset, KNOWN_BY))
        self.offset = offset

    def was_rewritten(self, file: FileIO | BytesIO) -> bool:
        """Whether a file has lost what was read of it last; if not, the file goes to the place."""
        file.seek(self.offset - len(self._before))
        return file.read(len(self._before)) != self._before
