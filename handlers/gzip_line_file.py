"""A compressed file that lines are appended to, by one process."""

from __future__ import annotations

import errno
import os
import threading
import zlib
from pathlib import Path
from typing import Any

from handlers.forks import renew_in_children
from handlers.gzip_repair import GZIP, ending, repair, write_all
from handlers.line_file import FLAGS


class GzipLineFile:
    """Appends a gzip member to a file, and a line to it with each call of `write`.

    Every line is flushed through the compressor and written at once, so a killed process loses
    none; what is torn then is repaired when the file is opened again. The file is locked: members
    of two writers would mix. A forked child writes a file of its own, ``name.<pid>.jsonl.gz``.

    Args:
        path: Its directory must exist.

    Raises:
        OSError: It cannot be opened, another process is writing it, or it is damaged.
    """

    descriptor = None  # no line can be written past the compressor

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parents_path = path
        self._closed = False
        self._reset()
        self._open()
        renew_in_children(self)

    def write(self, line: bytes) -> None:
        """Append a line, which has its end; after `close` too, for an event that comes late.

        Raises:
            OSError: It was not written; the file is as it was before.
        """
        with self._lock:
            if self._number is None:
                self._open()
            try:
                self._append(line)
            finally:
                if self._closed:
                    self._end()

    def suspect(self) -> None:
        """After a failure there is nothing to mend: what was not written wholly was cut off."""

    def close(self) -> None:
        """End the member and close the file."""
        with self._lock:
            self._closed = True
            if self._number is not None:
                self._end()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's file, and open another when there is an event."""
        # Closing it here leaves the parent's lock in place.
        if self._number is not None:
            os.close(self._number)
        name, suffixes = self._parents_path.name, "".join(self._parents_path.suffixes[-2:])
        own = f"{name.removesuffix(suffixes)}.{os.getpid()}{suffixes}"
        self.path = self._parents_path.with_name(own)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._number: int | None = None
        self._start_member()

    def _start_member(self) -> None:
        self._compressor: Any = None
        self._checksum = 0
        self._lines_size = 0

    def _open(self) -> None:
        descriptor = os.open(self.path, FLAGS, 0o666)
        try:
            _lock_file(descriptor)
            self._size = repair(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._number = descriptor

    def _append(self, line: bytes) -> None:
        if self._compressor is None:
            self._finish_member()
            self._compressor = zlib.compressobj(wbits=GZIP)
        data = self._compressor.compress(line) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        self._write(data)
        self._checksum = zlib.crc32(line, self._checksum)
        self._lines_size += len(line)

    def _write(self, data: bytes) -> None:
        assert self._number is not None  # noqa: S101 -- write() and close() have looked
        try:
            write_all(self._number, data)
        except OSError:
            # The compressor now counts on bytes that are not there, so this member has to end.
            self._compressor = None
            os.ftruncate(self._number, self._size)
            raise
        self._size += len(data)

    def _finish_member(self) -> None:
        if self._lines_size:
            self._write(ending(self._checksum, self._lines_size))
            self._start_member()

    def _end(self) -> None:
        descriptor = self._number
        assert descriptor is not None  # noqa: S101 -- write() and close() have looked
        try:
            self._finish_member()
            if self._size == 0:  # not even an empty gzip file
                self._write(zlib.compressobj(wbits=GZIP).flush())
        finally:
            self._start_member()
            self._number = None
            os.close(descriptor)


def _lock_file(descriptor: int) -> None:
    import fcntl  # noqa: PLC0415 -- not on every platform, and needed for compressed files only

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as taken:
        raise BlockingIOError(
            errno.EAGAIN,
            "another process or handler is writing it, and a gzip file has one writer "
            "(a path that ends in '.jsonl' can be shared, and '{rank}' in it gives each rank a "
            "file)",
        ) from taken
