"""A sink is closed when its handler is detached, or when its process ends."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Hashable
from multiprocessing import util as processes

from handlers.records import Closeable, Sink, Site
from telemetry import Attachment, signals

logger = logging.getLogger("telemetry")


class Lifecycle:
    """Calls ``close`` once: when the attachment is detached, by whomever, or at exit.

    At exit the handler stays attached, and what other exit hooks emit still reaches the sink.
    """

    def __init__(self, site: Site, attachment: Attachment, close: Callable[[], None]) -> None:
        self._site = site
        self._attachment = attachment
        self._pending = [close]
        signals.handler_detached.connect(self._on_detached, sender=site.registry, weak=False)
        # A hook of its own, so that it runs before those of the vendor that the sink imported.
        atexit.register(self.end)
        processes.register_after_fork(self, Lifecycle._end_with_child)
        self._end_with_child()
        if not attachment.active:
            self.end()

    def end(self) -> None:
        """Close the sink, unless that was done."""
        # Of several threads, one gets it.
        try:
            close = self._pending.pop()
        except IndexError:
            return
        # With the sender, blinker would go on holding the receiver.
        signals.handler_detached.disconnect(self._on_detached)
        atexit.unregister(self.end)
        self._finalizer.cancel()
        close()

    def _on_detached(self, _sender: object, handler_id: Hashable) -> None:
        # The id alone does not tell: it may belong to a newcomer by now.
        if handler_id == self._site.handler_id and not self._attachment.active:
            self.end()

    def _end_with_child(self) -> None:
        # A child of multiprocessing leaves without running what atexit has registered.
        self._finalizer = processes.Finalize(None, self.end, exitpriority=0)


def close_sink(site: Site, sink: Sink) -> None:
    """Close a sink if it can be closed; an error is logged, its handler being detached already."""
    if not isinstance(sink, Closeable):
        return
    try:
        sink.close()
    except Exception:
        logger.exception("Handler %r failed while it was being closed", site.handler_id)
