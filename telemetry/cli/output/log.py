"""The bus's log on a command's output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Write: TypeAlias = Callable[[str, bool], object]
"""Called with a text, and whether it is an error."""


class _Lines(logging.Handler):
    """Hands on what is logged: of an error what it says, without its traceback."""

    def __init__(self, write: Write) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            error = record.exc_info[1] if record.exc_info else None
            if error is not None and str(error) not in text:
                text = f"{text}: {type(error).__name__}: {error}"
            self._write(text, record.levelno >= logging.ERROR)
        except Exception:
            # Or an output that was closed would look like a failure of who logs.
            self.handleError(record)


@contextmanager
def log_lines(write: Write) -> Iterator[None]:
    """Call ``write`` for each warning and error of the logger ``telemetry`` meanwhile.

    Example:
        >>> with log_lines(print):
        ...     logging.getLogger("telemetry").warning("Handler %r: events lost", "jsonl")
        Handler 'jsonl': events lost False
    """
    logger = logging.getLogger("telemetry")
    lines = _Lines(write)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
