"""Attempts at a place that may be down: repeated with back-off, announced once."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

from handlers.forks import renew_in_children
from handlers.losses import Losses
from handlers.patience import PATIENCE, is_closing
from handlers.records import Site
from handlers.secrets import Secrets

FIRST: Final = 0.5
LONGEST: Final = 30.0
"""Seconds from a failed attempt to the next: they double from the first to the longest."""
LONGEST_WAIT: Final = 3600.0
"""Seconds that a server can make a handler wait at most."""

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
        self._start_anew()

    def _start_anew(self) -> None:
        self._down_since: float | None = None
        self._not_before = 0.0
        self._asked_until = 0.0
        self._delay = FIRST

    @property
    def is_down(self) -> bool:
        """Whether the last attempt failed."""
        return self._down_since is not None

    @property
    def left(self) -> float:
        """Seconds until `once` attempts anything again.

        The end of a handler does not wait for the back-off, but for what the other end asked for.
        """
        return self.asked if is_closing() else max(0.0, self._not_before - time.monotonic())

    @property
    def asked(self) -> float:
        """Seconds for which the other end still wants to be left alone."""
        return max(0.0, self._asked_until - time.monotonic())

    def __call__(self, attempt: Callable[[], object], *, size: int) -> bool:
        """Attempt until it succeeds; whether it did.

        Args:
            attempt: What is tried. It may be tried again after it did its work and failed then.
            size: How many events are lost if it is given up.

        Raises:
            Exception: What ``attempt`` raised, if that does not pass.
        """
        patience = PATIENCE.get()
        if patience is None and self.left:
            self._losses.add(size, "no connection")
            return False
        if patience is not None and (asked := self.asked) and not patience.wait(asked, asked):
            return False
        while True:
            try:
                attempt()
            except Exception as error:
                waits = self._waits_after(error)
                if waits is None:
                    raise
                if patience is None:
                    self._losses.add(size, self._secrets.redact(error))
                    return False
                if not patience.wait(*waits):
                    return False  # given up, and counted, by who has the patience
            else:
                self._is_up()
                return True

    def once(self, attempt: Callable[[], object]) -> bool:
        """Attempt it now, unless the back-off lasts; whether it succeeded.

        For what comes again with the next attempt, so that a failure loses nothing.

        Args:
            attempt: What is tried.

        Raises:
            Exception: What ``attempt`` raised, if that does not pass.
        """
        if self.left:
            return False
        try:
            attempt()
        except Exception as error:
            if self._waits_after(error) is None:
                raise
            return False
        self._is_up()
        return True

    def _waits_after(self, error: Exception) -> tuple[float, float] | None:
        """How long to wait, and how long the other end asks for; None if that is of no use."""
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
        self._not_before, self._asked_until = time.monotonic() + wait, time.monotonic() + asked
        return wait, asked

    def _is_up(self) -> None:
        if self._down_since is not None:
            logger.warning(
                "Handler %r reaches %s again, after %.0f s.",
                self._site.handler_id,
                self._place,
                time.monotonic() - self._down_since,
            )
        self._start_anew()


def retry_after(header: str | None) -> float:
    """How long a server wants to be left alone, in seconds; 0 if it does not say.

    Args:
        header: ``Retry-After``, seconds or a date (RFC 9110, 10.2.3). Of more than an hour, that.

    Example:
        >>> retry_after("2"), retry_after("soon"), retry_after("1e9"), retry_after(None)
        (2.0, 0.0, 3600.0, 0.0)
    """
    for read in (float, _until):
        try:
            seconds = read(header or "")
        except (ValueError, TypeError, OverflowError):
            continue
        return min(seconds, LONGEST_WAIT) if isfinite(seconds) and seconds > 0 else 0.0
    return 0.0


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
