"""A sink is closed when its handler is detached, or when its process ends."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Hashable
from multiprocessing import util as processes
from typing import Final, Protocol

from handlers.records import Closeable, Sink, Site
from telemetry import Attachment, signals

POLL: Final = 0.01
"""Seconds between two looks at what another thread is closing."""

logger = logging.getLogger("telemetry")


class Ending(Protocol):
    """What delivers to a sink, as far as its end is concerned."""

    def begin_close(self) -> None:
        """Begin what takes long, and do not wait for it; ``close`` comes soon."""

    def close(self) -> None:
        """Close the sink, for as long as that may take since its beginning."""


class Lifecycle:
    """Closes a sink once: when the attachment is detached, by whomever, or at exit.

    At exit the handler stays attached, and what other exit hooks emit still reaches the sink.

    Args:
        site: Where the sink is attached.
        attachment: Detaching it ends the sink.
        ending: What is closed.
        timeout: Seconds that closing may take.
        announces: Whether the sink may lose events at its end and say so, which others are to
            hear: these are closed later.
    """

    def __init__(
        self,
        site: Site,
        attachment: Attachment,
        ending: Ending,
        *,
        timeout: float,
        announces: bool,
    ) -> None:
        self._site = site
        self._attachment = attachment
        self._pending = [ending]
        self.timeout = timeout
        self.announces = announces
        _living[self] = None
        signals.handler_detached.connect(self._on_detached, sender=site.registry, weak=False)
        # A hook of its own, so that it runs before those of the vendor that the sink imported.
        atexit.register(self._end_at_exit)
        processes.register_after_fork(self, Lifecycle._end_with_child)
        self._end_with_child()
        if not attachment.active:
            self.end()

    def begin(self) -> None:
        """Let the sink deliver what waits, unless it is closed already."""
        for ending in tuple(self._pending):
            ending.begin_close()

    def end(self) -> None:
        """Close the sink, unless that was done."""
        # Of several threads, one gets it.
        try:
            ending = self._pending.pop()
        except IndexError:
            return
        # With the sender, blinker would go on holding the receiver.
        signals.handler_detached.disconnect(self._on_detached)
        self._finalizer.cancel()
        try:
            ending.close()
        finally:
            _living.pop(self, None)
            # Not before: a program that is ending has to wait for the thread that is closing.
            atexit.unregister(self._end_at_exit)

    def detach(self) -> None:
        """Detach the handler, which closes its sink."""
        self._attachment.detach()

    def _end_at_exit(self) -> None:
        if not self.announces:
            for lifecycle in _begun(announcing=True):
                lifecycle.end()
        _begun(announcing=self.announces)
        limit = time.monotonic() + self.timeout
        self.end()
        while self in _living and time.monotonic() < limit:  # closed by a thread, upon a signal
            time.sleep(POLL)

    def _on_detached(self, _sender: object, handler_id: Hashable) -> None:
        # The id alone does not tell: it may belong to a newcomer by now.
        if handler_id == self._site.handler_id and not self._attachment.active:
            self.end()

    def _end_with_child(self) -> None:
        # A child of multiprocessing leaves without running what atexit has registered.
        self._finalizer = processes.Finalize(None, self._end_at_exit, exitpriority=0)


_living: dict[Lifecycle, None] = {}


def living() -> list[Lifecycle]:
    """The lifecycles that have not ended, the newest first."""
    return list(_living)[::-1]


def close_all() -> None:
    """Close all sinks, and wait for those that another thread is closing."""
    for announcing in (True, False):
        limit = time.monotonic() + max((one.timeout for one in living()), default=0.0)
        for lifecycle in _begun(announcing=announcing):
            lifecycle.end()
        while _some(announcing=announcing) and time.monotonic() < limit:
            time.sleep(POLL)


def detach_all() -> None:
    """Detach all handlers that `handlers.attach` has attached, on whatever bus; close their sinks.

    They deliver what waits at the same time, so that several that hang cost no more than the
    longest ``flush_timeout``. Those with a network to wait for come first: the file beside them
    has what they announce as lost.

    Example:
        >>> import handlers, telemetry
        >>> first = handlers.attach("memory", id="first")
        >>> second = handlers.attach("memory", id="second", registry=telemetry.Registry())
        >>> handlers.detach_all()
        >>> first.active, second.active
        (False, False)
    """
    for announcing in (True, False):
        for lifecycle in _begun(announcing=announcing):
            lifecycle.detach()


def _begun(*, announcing: bool) -> list[Lifecycle]:
    """Let sinks deliver what waits at the same time: ten that hang cost as much as one."""
    some = _some(announcing=announcing)
    for lifecycle in some:
        lifecycle.begin()
    return some


def _some(*, announcing: bool) -> list[Lifecycle]:
    return [one for one in living() if one.announces is announcing]


class Closing:
    """The end of a sink that has no worker."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close

    def begin_close(self) -> None:
        """Nothing: it is closed by who waits for it."""


def close_sink(site: Site, sink: Sink) -> None:
    """Close a sink if it can be closed; an error is logged, its handler being detached already."""
    if not isinstance(sink, Closeable):
        return
    try:
        sink.close()
    except Exception:
        logger.exception("Handler %r failed while it was being closed", site.handler_id)
