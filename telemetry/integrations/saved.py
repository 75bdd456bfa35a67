"""What a checkpoint looks like on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What tells a saved file or directory from the one that was there before.

    Attributes:
        size: Of all its files, in bytes.
        changed: When the newest of them was written, in nanoseconds.
        inode: Of the file or directory.
    """

    size: int
    changed: int
    inode: int


def fingerprint(path: str | os.PathLike[str]) -> Fingerprint | None:
    """The fingerprint of a local file or directory; None if it is not there.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"weights")
        ...     file.flush()
        ...     fingerprint(file.name).size
        7
        >>> fingerprint(file.name)
    """
    try:
        there = Path(path).stat()
        parts = [there]
        if stat.S_ISDIR(there.st_mode):
            parts = [found.stat() for found in Path(path).rglob("*") if found.is_file()] or parts
    except (OSError, ValueError):
        return None  # not there, not allowed, being replaced at this moment, no local name
    size = sum(part.st_size for part in parts)
    return Fingerprint(size, max(part.st_mtime_ns for part in parts), there.st_ino)
