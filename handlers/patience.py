"""How long a sink may go on trying: until it is closed, and a little longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from typing import Final

HURRY: Final = 0.2
"""Seconds between two attempts once the handler is being closed."""


class Patience:
    """A worker's: what its sink waits with.

    Args:
        give_up: Called when there is no time left: it counts what the sink has, and sets `over`.

    Attributes:
        closing: Set when the handler is being closed: what waits is tried once more, in a hurry.
        deadline: Until when, by the monotonic clock; without an end while it is not being closed.
        over: Set when what the sink has was given up.
    """

    def __init__(self, give_up: Callable[[], object] | None = None) -> None:
        self.closing = threading.Event()
        self.over = threading.Event()
        self.deadline = inf
        self._give_up = give_up or self.over.set

    def wait(self, seconds: float, least: float = 0.0) -> bool:
        """Wait before another attempt; False says that there is to be none.

        Args:
            seconds: How long, unless the handler is being closed.
            least: How long in any case, because the other end asked for that. If it is more than
                is left, the attempt is given up at once.
        """
        began = time.monotonic()
        if not self.closing.wait(max(seconds, least)):
            return True
        now = time.monotonic()
        asked, left = began + least - now, self.deadline - now
        if left <= 0 or asked > left:
            self._give_up()
            return False
        return not self.over.wait(min(max(asked, min(seconds, HURRY)), left))


def is_closing() -> bool:
    """Whether the handler of this worker is being closed.

    Example:
        >>> is_closing()  # not on a worker
        False
    """
    patience = PATIENCE.get()
    return patience is not None and patience.closing.is_set()


def given_up() -> bool:
    """Whether nobody waits for this worker any more; what its sink had was counted as lost.

    Example:
        >>> given_up()  # not on a worker
        False
    """
    patience = PATIENCE.get()
    return patience is not None and patience.over.is_set()


PATIENCE: Final[ContextVar[Patience | None]] = ContextVar("trainbus_patience", default=None)
"""Set on a worker; None in an emitter's thread, which must not wait at all."""
