"""Bytes that come in pieces, as files that the engine reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

BLOCK: Final = 1 << 27
"""Bytes of one file: as many as keep several threads of the engine busy."""


def blocks_of(pieces: Iterable[bytes], size: int = BLOCK) -> Generator[str]:
    r"""The paths of files that hold the pieces, one file after another.

    The next one is filled while one is read, and each is gone when the next is asked for. They are
    in memory where the system has such files. A pipe would do without, but only one thread of the
    engine reads from a pipe.

    Args:
        pieces: Each some whole lines.
        size: The bytes from which on a file is full.

    Raises:
        OSError: A file cannot be filled, or the pieces raise it.

    Example:
        >>> for path in blocks_of([b"one\n", b"two\n", b"three\n"], size=8):
        ...     with open(path) as file:
        ...         print(file.read().split())
        ['one', 'two']
        ['three']
    """
    remaining = iter(pieces)
    with ThreadPoolExecutor(1, "trainbus-lines") as thread:
        ahead = thread.submit(_filled, remaining, size)
        try:
            while (block := ahead.result()) is not None:
                ahead = thread.submit(_filled, remaining, size)
                with block:
                    yield _path_of(block)
        finally:
            left = None if ahead.exception() else ahead.result()
            if left is not None:
                left.close()


def _filled(pieces: Iterator[bytes], size: int) -> IO[bytes] | None:
    """A file with the next pieces; None if there are no more."""
    first = next(pieces, None)
    if first is None:
        return None
    block = _new()
    try:
        block.write(first)
        while block.tell() < size and (piece := next(pieces, None)) is not None:
            block.write(piece)
        block.flush()
    except BaseException:
        block.close()
        raise
    return block


def _new() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("trainbus-lines"), "wb")
    return tempfile.NamedTemporaryFile(prefix="trainbus-")


def _path_of(block: IO[bytes]) -> str:
    return f"/proc/self/fd/{block.fileno()}" if isinstance(block.name, int) else block.name
