"""A file of records as TensorBoard reads them."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)

Framing: TypeAlias = Callable[[Sequence[bytes]], list[bytes]]

_numbers = itertools.count()


class NotWrittenError(OSError):
    """The disk is full, or the file cannot be written for another reason.

    Attributes:
        lost: How many records were not begun.
    """

    def __init__(self, cause: OSError, lost: int) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.lost = lost


class EventFile:
    """Appends records, those of one call with one ``write``.

    So they are with the kernel when `write` returns, and a killed process loses none of them. A
    record that did not fit on the disk is completed by the next call: a reader that met its first
    half waits for the second one.

    Args:
        directory: Where it is made, at the first `write`.
        frame: Makes a record of each message.
        header: The first record's message.
    """

    def __init__(self, directory: Path, frame: Framing, header: bytes) -> None:
        # A child has another process id; two files of one process and second have two numbers.
        self.path = directory / (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
            f".{os.getpid()}.{next(_numbers)}"
        )
        self._frame = frame
        (self._header,) = frame([header])
        self._rest = self._header  # of a record that was begun, or has to come first
        self._descriptor: int | None = None

    def write(self, messages: Sequence[bytes]) -> None:
        """Append a record for each message; after `close` too, for an event that comes late.

        Raises:
            NotWrittenError: Not all of it was written.
        """
        pieces = [self._rest, *self._frame(messages)]
        data = b"".join(pieces)
        done = 0
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, FLAGS, 0o666)
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError as error:
            raise NotWrittenError(error, self._keep_rest(pieces, done)) from error
        self._rest = b""

    def close(self) -> int:
        """Close the file; how many records are cut off in the middle."""
        self.forget()
        return int(self._rest not in (b"", self._header))

    def forget(self) -> None:
        """Let go of the descriptor; in a forked child, of its copy."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _keep_rest(self, pieces: list[bytes], done: int) -> int:
        """Keep what is missing of the piece that is torn; how many come after it."""
        for position, piece in enumerate(pieces):
            if done < len(piece):
                torn = done > 0 or position == 0
                self._rest = piece[done:] if torn else b""
                return len(pieces) - position - torn
            done -= len(piece)
        return 0
