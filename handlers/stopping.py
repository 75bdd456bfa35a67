"""Asking a command that goes on and on to end what it began."""

from __future__ import annotations

import time
from math import inf
from typing import Final

from handlers.patience import Patience

GRACE: Final = 5.0
"""Seconds to end what was begun, once it is to stop."""
POLL: Final = 0.05


class Stop(Patience):
    """Tells a relay or a replay to stop, from a signal handler: by a flag, which takes no lock.

    Attributes:
        until: Until when, by the monotonic clock, a server that is away is tried again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.until = inf
        self._deadline: float | None = None

    def __call__(self) -> None:
        """Stop: end what was begun, for at most some seconds."""
        self._deadline = time.monotonic() + GRACE

    @property
    def asked(self) -> bool:
        """Whether it is to stop."""
        return self._deadline is not None

    @property
    def late(self) -> bool:
        """Whether it should have stopped by now."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def wait(self, seconds: float, least: float = 0.0) -> bool:
        """Wait before another attempt; False says that there is to be none."""
        end = min(time.monotonic() + max(seconds, least), self.until)
        while time.monotonic() < end and not self.asked:
            time.sleep(POLL)
        return not self.asked and time.monotonic() < self.until
