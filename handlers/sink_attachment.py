"""What ``handlers.attach`` gives back."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from handlers.background import Background
from handlers.lifecycle import Closing, Ending, Lifecycle, close_sink
from handlers.records import Closeable, Flushable, Sink, Site
from handlers.termination import install as flush_on_termination
from telemetry import Attachment, EventName


class SinkAttachment(Attachment):
    """An attachment that knows its sink, and closes it when it is detached.

    Example:
        >>> import handlers
        >>> with handlers.attach("memory") as memory:
        ...     memory.flush()
        True
    """

    def __init__(
        self,
        site: Site,
        attachment: Attachment,
        sink: Sink,
        worker: Background | None,
        *,
        flush_timeout: float,
    ) -> None:
        self._site = site
        self._attachment = attachment
        self._sink = sink
        self._worker = worker
        ending: Ending = worker or Closing(lambda: close_sink(site, sink))
        if worker is not None:
            worker.start(attachment)
        if worker is not None or isinstance(sink, Closeable):
            flush_on_termination()
        # By its own choice, whatever `attach` was told: a file with a worker announces nothing that
        # the others would have to hear.
        announces = getattr(sink, "delivery", "ordered") == "background"
        self._lifecycle = Lifecycle(
            site, attachment, ending, timeout=flush_timeout, announces=announces
        )

    @property
    def id(self) -> Hashable:
        """The id it was attached with."""
        return self._attachment.id

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return self._attachment.active

    def detach(self) -> None:
        """Detach it from all its events, flush it and close it, unless that has happened."""
        self._attachment.detach()

    def fail(self, event: EventName, error: Exception) -> None:
        """Treat ``error`` as if the handler had raised it when it was called for ``event``."""
        self._attachment.fail(event, error)

    @property
    def handler(self) -> Any:
        """What takes the events: for "memory", the object that has ``.events``."""
        return self._sink

    @property
    def lost(self) -> dict[str, int]:
        """How many events it has lost so far, by the reason (``policy``)."""
        totals: dict[str, int] = {}
        for one in tuple(self._site.lost):
            totals[one.policy] = totals.get(one.policy, 0) + one.total
        return {policy: total for policy, total in totals.items() if total}

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was emitted before this call is where it belongs.

        Args:
            timeout: Seconds, by default the ``flush_timeout`` given to `attach`.

        Returns:
            Whether that happened in time. False also after a failure of the handler, because
            what waited was given up, and on the handler's own worker thread, which
            cannot wait for itself.
        """
        if self._worker is not None:
            return self._worker.flush(timeout)
        return not (isinstance(self._sink, Flushable) and self._sink.flush() is False)
