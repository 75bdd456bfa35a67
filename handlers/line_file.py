"""A file that lines are appended to, whole, by any number of threads and processes."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Final

from handlers.forks import renew_in_children

FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)

SETTLED: Final = 0.02
"""Seconds after which half a line is not one that another process is just writing."""


class Descriptor:
    """A file's number, closed when the last thread that writes to it has let go of it.

    Closed any earlier, the number could stand for somebody else's file by the time it is used. A
    lock around each write would do as well, at a seventh of what a line costs.

    Attributes:
        number: For ``os.write``.
        torn: Whether the file's last line may have no end, which the next one then has to bring.
    """

    __slots__ = ("number", "torn")

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, FLAGS, 0o666)
        self.torn = self._is_left_torn()

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def append(self, data: bytes) -> None:
        """Write all of it, or leave the file torn."""
        self.torn = True
        while data:
            data = data[os.write(self.number, data) :]
        self.torn = False

    def lacks_end(self) -> bool:
        """Whether the last line has no end, be it that another process is just writing it."""
        size = self._size()
        return size > 0 and os.pread(self.number, 1, size - 1) != b"\n"

    def _is_left_torn(self) -> bool:
        seen = -1
        while self.lacks_end():
            size = self._size()
            if size == seen:
                return True
            seen = size
            time.sleep(SETTLED)  # only whoever opens the file waits, never an emitter
        return False

    def _size(self) -> int:
        status = os.fstat(self.number)
        return status.st_size if stat.S_ISREG(status.st_mode) else 0


class LineFile:
    """Appends lines with one ``write`` each on an ``O_APPEND`` descriptor.

    So a line is with the kernel when `write` returns, and the lines of several writers do not mix.
    What was torn by a crash or a full disk is closed off with a line's end.

    Args:
        path: Its directory must exist.

    Attributes:
        descriptor: While the file is open: unless that is torn, a line may be given to
            ``os.write`` at once, and what that leaves over to ``append``.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: Descriptor | None = Descriptor(path)
        self._lock = threading.RLock()
        renew_in_children(self)

    def write(self, line: bytes) -> None:
        """Append a line, which has its end; after `close` too, for an event that comes late.

        Raises:
            OSError: It was not written, or not wholly; the next line will be whole again.
        """
        with self._lock:
            file = self.descriptor or Descriptor(self.path)
            file.append(b"\n" + line if file.torn and file.lacks_end() else line)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.descriptor = None

    def suspect(self) -> None:
        """After a failure: look whether somebody's line is torn before the next one is written."""
        file = self.descriptor
        if file is not None:
            file.torn = True

    def after_fork(self) -> None:
        """In a forked child: a lock that no thread of the parent holds."""
        self._lock = threading.RLock()
