"""Gzip members as they come, the last of which may still be written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

GZIP: Final = 31
"""The ``wbits`` of zlib that mean gzip's header and trailer."""
PADDING: Final = b"\x00"
"""What may stand between and after members."""
PIECE: Final = 1 << 20
"""Bytes that are decompressed at once: a megabyte of a file can hold a gigabyte."""


class Inflater:
    """Decompresses a gzip file piece by piece: whatever has been flushed is there at once.

    Example:
        >>> import gzip
        >>> list(Inflater().feed(gzip.compress(b"one ") + gzip.compress(b"two")))
        [b'one ', b'two']

    Attributes:
        damage: Why nothing more can be read, "" as long as all is whole.
    """

    def __init__(self) -> None:
        self.damage = ""
        self._member: Any = None
        self._is_gzip = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What some more bytes of the file hold, up to where they are no gzip.

        It has to be taken to its end.
        """
        while data and not self.damage:
            if self._member is None:
                data = data.lstrip(PADDING)
                self._member = zlib.decompressobj(GZIP) if data else None
                continue
            yield from self._decompress(data)
            data = self._member.unused_data
            if self._member.eof:
                self._member = None
                self._is_gzip = True

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        full = True
        while full and not self.damage:
            before = self._member.copy()
            try:
                piece = bytes(self._member.decompress(data, PIECE))
            except zlib.error as damage:
                yield from _up_to_damage(before, data)
                self._is_gzip |= not str(damage).endswith("incorrect header check")
                self.damage = _words(damage) if self._is_gzip else "it is no gzip file"
                return
            if piece:
                self._is_gzip = True
                yield piece
            data = self._member.unconsumed_tail
            # At a member's end zlib may give as its tail what follows the member.
            full = not self._member.eof and (bool(data) or len(piece) == PIECE)


def _words(damage: zlib.error) -> str:
    return f"the gzip file is damaged: {damage}"


def _up_to_damage(member: Any, data: bytes) -> Iterator[bytes]:
    """What zlib had decompressed before it found the damage, and did not give away."""
    try:
        for place in range(len(data)):
            piece = data[place : place + 1]
            while text := member.decompress(piece, PIECE):
                yield text
                piece = member.unconsumed_tail
    except zlib.error:
        return
