"""How long a sink may go on trying: until it is closed, and a little longer."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final

HURRY: Final = 0.2
"""Seconds between two attempts once the handler is being closed."""


class Patience:
    """A worker's: what its sink waits with.

    Attributes:
        closing: Set when the handler is being closed: what waits is tried once more, in a hurry.
        over: Set when nobody waits for the sink any more.
    """

    def __init__(self) -> None:
        self.closing = threading.Event()
        self.over = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait before another attempt; False says that there is to be none."""
        if not self.closing.wait(seconds):
            return True
        return not self.over.wait(min(seconds, HURRY))


PATIENCE: Final[ContextVar[Patience | None]] = ContextVar("trainbus_patience", default=None)
"""Set on a worker; None in an emitter's thread, which must not wait at all."""
