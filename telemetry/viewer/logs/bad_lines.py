"""Lines of a log that are no records: left out, and said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

SHOWN: Final = 5
"""Bad lines that a warning names."""


class BadLinesWarning(UserWarning):
    """A log has lines that are no records."""


class BadLines:
    """The bad lines of one file.

    Args:
        path: The file.

    Example:
        >>> bad = BadLines(Path("run.jsonl"))
        >>> bad(7, "no JSON object, but int")
        >>> bad.text()
        'run.jsonl: no record in line 7 (no JSON object, but int); left out.'

    Attributes:
        path: The file.
        count: How many there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._first: list[int] = []
        self._reason = ""

    def __call__(self, number: int, reason: str) -> None:
        """Count one."""
        self.count += 1
        self._reason = self._reason or reason
        if len(self._first) < SHOWN:
            self._first.append(number)

    def text(self) -> str:
        """Which they are, in a sentence."""
        which = ", ".join(map(str, self._first))
        if self.count == 1:
            return f"{self.path}: no record in line {which} ({self._reason}); left out."
        more = f" and {self.count - SHOWN:,} more" if self.count > SHOWN else ""
        return f"{self.path}: no record in lines {which}{more} ({self._reason}); left out."

    def warn(self, *, stacklevel: int = 2) -> None:
        """Warn of them, if there are any."""
        if self.count:
            warnings.warn(self.text(), BadLinesWarning, stacklevel=stacklevel + 1)
