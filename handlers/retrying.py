"""Attempts at a place that may be down: repeated with back-off, announced once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

from handlers.forks import renew_in_children
from handlers.losses import Losses
from handlers.patience import PATIENCE
from handlers.records import Site
from handlers.secrets import Secrets

FIRST: Final = 0.5
LONGEST: Final = 30.0
"""Seconds from a failed attempt to the next: they double from the first to the longest."""

logger = logging.getLogger("telemetry")


class Retrying:
    """Repeats what fails for a reason that passes, for as long as its worker is given.

    On a worker thread the attempts are repeated until one succeeds or the handler is closed;
    meanwhile what is emitted waits in the worker's bounded queue. In an emitter's thread, which
    must not wait, there is one attempt, and none for as long as the back-off lasts.

    That the place is down is logged once, and once that it is back.

    Args:
        site: Whose.
        place: What it tries to reach, in words without secrets.
        passes: Seconds to wait at least before another attempt after an error, 0 to leave that
            to the back-off; None for an error that does not pass, which is raised.
        losses: Counts what is given up.
        secrets: What errors must not show.
    """

    def __init__(
        self,
        site: Site,
        place: str,
        *,
        passes: Callable[[Exception], float | None],
        losses: Losses,
        secrets: Secrets | None = None,
    ) -> None:
        self._site = site
        self._place = place
        self._passes = passes
        self._losses = losses
        self._secrets = secrets or Secrets()
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Whether the place is down is for the child to find out."""
        self._down_since: float | None = None
        self._not_before = 0.0
        self._delay = FIRST

    def __call__(self, attempt: Callable[[], object], *, size: int) -> bool:
        """Attempt until it succeeds; whether it did.

        Args:
            attempt: What is tried. It may be tried again after it did its work and failed then.
            size: How many events are lost if it is given up.

        Raises:
            Exception: What ``attempt`` raised, if that does not pass.
        """
        patience = PATIENCE.get()
        if patience is None and time.monotonic() < self._not_before:
            self._losses.add(size, "no connection")
            return False
        while True:
            try:
                attempt()
            except Exception as error:
                wait = self._wait_after(error)
                if wait is None:
                    raise
                if patience is None:
                    self._losses.add(size, self._secrets.redact(error))
                    return False
                if not patience.wait(wait):
                    return False  # given up, and counted, by who waited for the worker
            else:
                self._is_up()
                return True

    def _wait_after(self, error: Exception) -> float | None:
        asked = self._passes(error)
        if asked is None:
            return None
        if self._down_since is None:
            self._down_since = time.monotonic()
            logger.warning(
                "Handler %r cannot reach %s (%s); it goes on trying.",
                self._site.handler_id,
                self._place,
                self._secrets.redact(f"{type(error).__name__}: {error}"),
            )
        # Many processes that lost the same place should not come back at the same moment.
        wait = max(asked, self._delay * random.uniform(0.5, 1.0))
        self._delay = min(2 * self._delay, LONGEST)
        self._not_before = time.monotonic() + wait
        return wait

    def _is_up(self) -> None:
        if self._down_since is not None:
            logger.warning(
                "Handler %r reaches %s again, after %.0f s.",
                self._site.handler_id,
                self._place,
                time.monotonic() - self._down_since,
            )
        self._down_since = None
        self._not_before = 0.0
        self._delay = FIRST
