"""Messages framed as the records of an event file: length and message, each with its checksum.

The checksums of a batch are computed together, by numpy: a byte at a time in Python, as TensorBoard
does it, they take most of the time that a record takes.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from types import ModuleType
from typing import Any, Final

POLYNOMIAL: Final = 0x82F63B78
"""Of CRC-32C, with its bits reversed."""
MASK: Final = 0xA282EAD8
LONGEST: Final = 256
"""Bytes that are looked up at once; of a longer message, one piece after the other."""
_ALL: Final = 0xFFFFFFFF


class Framing:
    """Makes records of messages.

    Args:
        numpy: The package ``numpy``.

    Example:
        >>> import numpy
        >>> Framing(numpy).records([b"123456789"])[0].hex(" ", 4)
        '09 00000000 00000037 f9713931 32333435 36373839 e5b08ac7'
    """

    def __init__(self, numpy: ModuleType) -> None:
        self._numpy = numpy
        self._shifted = _shifted_tables(numpy)
        self._header = lru_cache(maxsize=1024)(self._new_header)

    def records(self, messages: Sequence[bytes]) -> list[bytes]:
        """A record for each message."""
        checksums = self._checksums(messages)
        return [
            b"".join((self._header(len(message)), message, _masked(checksum)))
            for message, checksum in zip(messages, checksums, strict=True)
        ]

    def _new_header(self, length: int) -> bytes:
        header = struct.pack("<Q", length)
        return header + _masked(self._checksums([header])[0])

    def _checksums(self, messages: Sequence[bytes]) -> list[int]:
        """CRC-32C of each message, piece by piece where one is long."""
        states = [_ALL] * len(messages)
        pieces = [list(_pieces(message)) for message in messages]
        for number in range(max(map(len, pieces), default=0)):
            at = [index for index, own in enumerate(pieces) if number < len(own)]
            new = self._advanced([states[i] for i in at], [pieces[i][number] for i in at])
            for index, state in zip(at, new, strict=True):
                states[index] = state
        return [state ^ _ALL for state in states]

    def _advanced(self, states: Sequence[int], pieces: Sequence[bytes]) -> list[int]:
        """The states after a piece each, which has 1 to `LONGEST` bytes.

        A checksum is linear: that of a piece is the XOR of those of its single bytes, each with
        the zeros that come behind it. The state before it is as good as its first four bytes.
        """
        np = self._numpy
        lengths = [len(piece) for piece in pieces]
        ends = list(accumulate(lengths))
        starts = [end - length for end, length in zip(ends, lengths, strict=True)]
        data = bytearray(b"".join(pieces))
        beyond = []
        for start, length, state in zip(starts, lengths, states, strict=True):
            first = min(4, length)
            own = int.from_bytes(data[start : start + first], "little") ^ state
            data[start : start + first] = (own & (1 << 8 * first) - 1).to_bytes(first, "little")
            beyond.append(state >> 8 * first)
        behind = np.repeat(ends, lengths) - np.arange(1, len(data) + 1)
        found = self._shifted[behind * 256 + np.frombuffer(data, np.uint8)]
        sums: list[int] = np.bitwise_xor.reduceat(found, starts).tolist()
        return [one ^ rest for one, rest in zip(sums, beyond, strict=True)]


def _pieces(message: bytes) -> Iterator[bytes]:
    return (message[at : at + LONGEST] for at in range(0, len(message), LONGEST))


def _masked(checksum: int) -> bytes:
    """As the format has it, so that the checksum of a record with checksums is no special one."""
    turned = (checksum >> 15 | checksum << 17) & _ALL
    return struct.pack("<I", turned + MASK & _ALL)


def _shifted_tables(np: ModuleType) -> Any:
    """The checksum of each byte, with 0 to `LONGEST` - 1 zeros behind it."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ POLYNOMIAL, table >> 1).astype(np.uint32)
    tables = [table]
    while len(tables) < LONGEST:
        tables.append(tables[-1] >> 8 ^ table[tables[-1] & 0xFF])
    return np.concatenate(tables)
