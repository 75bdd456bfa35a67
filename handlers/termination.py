"""``SIGTERM``: what waits is delivered before the process dies of it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Final

from handlers.lifecycle import close_all, living

MARGIN: Final = 1.0
"""Seconds beyond the longest ``flush_timeout``, for sinks that are closed without a worker."""


class _Terminate:
    """Closes all sinks, then lets the signal do what it does by default.

    It equals ``SIG_DFL``, because it is that to whoever looks before installing a handler:
    Lightning would call another one after its own, and die where it means to stop in good order.
    """

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        # From now on the kernel's own: a second signal ends the process at once, and the one sent
        # below ends it whatever its main thread is doing.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            # Not here: the line that was interrupted may hold a lock that a sink waits for.
            threading.Thread(target=_close_and_die, name="trainbus-termination").start()
        except RuntimeError:  # the interpreter is shutting down, or has no thread left to give
            close_all()
            _die()

    def __eq__(self, other: object) -> bool:
        return other is self or other == int(signal.SIG_DFL)

    def __hash__(self) -> int:
        # Another than SIG_DFL's, or `signal.getsignal` would look this up among its constants, find
        # that one, and give it to those who save a handler to put it back.
        return id(self)

    def __repr__(self) -> str:
        return "<trainbus: close all sinks, then the default action>"


_TERMINATE: Final = _Terminate()


def install() -> None:
    """Flush on ``SIGTERM``, if nobody else handles it, and if this is the main thread.

    A program's own handler is never replaced, and one that comes later replaces this one. It
    should end the program with ``sys.exit``, whose hooks close the sinks, or call
    `handlers.detach_all`. A forked child has the default action until it attaches a handler
    itself, so that ``Process.terminate()`` is as quick as ever.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python has signals installed by the main thread only
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _TERMINATE)


def _close_and_die() -> None:
    limit = max((lifecycle.timeout for lifecycle in living()), default=0.0) + MARGIN
    closing = threading.Thread(target=close_all, name="trainbus-closing", daemon=True)
    closing.start()
    closing.join(limit)
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _renew() -> None:
    if signal.getsignal(signal.SIGTERM) is _TERMINATE:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
