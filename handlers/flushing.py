"""Waiting for a handler to deliver, for as long as that takes."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from functools import partial

from handlers.errors import DeliveryError
from handlers.sink_attachment import SinkAttachment
from handlers.stopping import POLL


class Flush:
    """Flushes a handler, for as long as that takes, in a thread of its own.

    To ask it again and again for a short while would never end where its flush takes longer.

    Args:
        attachment: The handler's.
        aftermath: What becomes of the events that a failed handler had, in a sentence.

    Attributes:
        delivered: Whether the handler has delivered all that it was given before.
    """

    def __init__(self, attachment: SinkAttachment, aftermath: str) -> None:
        self.attachment = attachment
        self._aftermath = aftermath
        self.delivered = False
        self._error: Exception | None = None
        self._start()

    def join(self, seconds: float) -> None:
        """Wait for it, for at most so many seconds."""
        self._thread.join(seconds)

    def is_done(self) -> bool:
        """Whether the handler has delivered all that it was given.

        Raises:
            DeliveryError: It failed, now or before.
        """
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise DeliveryError(
                f"Handler {self.attachment.id!r} failed: {self._error}"
            ) from self._error
        if not self.attachment.active:
            raise DeliveryError(
                f"Handler {self.attachment.id!r} has failed and was detached. {self._aftermath}"
            )
        if not self.delivered:
            self._start()
        return self.delivered

    def _start(self) -> None:
        # With the patience of who waits, should there be no worker to flush it.
        run = partial(copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name="trainbus-flush", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.delivered = self.attachment.flush(threading.TIMEOUT_MAX)
        except Exception as error:  # for who waits
            self._error = error
        if not self.delivered:
            time.sleep(POLL)
