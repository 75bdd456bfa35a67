"""Pollers are stopped when their process ends, before the sinks are closed that hear them."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol


class Stoppable(Protocol):
    """What is stopped."""

    def stop(self) -> None:
        """Stop it."""


PRIORITY: Final = 10
"""Among what a child of multiprocessing does at its end: sinks are closed at priority 0."""

_living: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_hooked = 0
"""The process that has the hooks."""


def watch_exit() -> None:
    """See to it that the pollers of this process are stopped when it ends.

    Raises:
        RuntimeError: It is ending already.
    """
    global _hooked
    if _hooked == os.getpid():
        return
    # The hooks of `atexit` run in the reverse order of their making, those of later handlers first.
    # These run before all of them.
    threading._register_atexit(_stop_all)  # type: ignore[attr-defined]  # noqa: SLF001 -- as concurrent.futures does
    # A child of multiprocessing leaves without running either.
    from multiprocessing import util as processes  # noqa: PLC0415 -- takes long to import

    processes.Finalize(None, _stop_all, exitpriority=PRIORITY)
    _hooked = os.getpid()


def stop_at_exit(poller: Stoppable) -> None:
    """Stop a poller when the process ends, if somebody else still holds it then."""
    _living.add(poller)


def _stop_all() -> None:
    for poller in tuple(_living):
        poller.stop()
