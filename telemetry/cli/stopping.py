"""Ctrl-C and ``SIGTERM`` for commands that have something to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from telemetry.cli.endings import INTERRUPTED

if TYPE_CHECKING:
    from handlers.stopping import Stop


@contextmanager
def stopping(last_words: Callable[[], str] = str) -> Iterator[Stop]:
    """Stop in good order when asked by Ctrl-C or ``SIGTERM``, and at once when asked again.

    At once is without what else a program does at its end: each of its handlers would wait for what
    it still has.

    Args:
        last_words: What to say on standard error before that. It must take no lock.
    """
    from handlers.stopping import Stop  # noqa: PLC0415 -- after check_process

    stop = Stop()

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.asked:
            _end_at_once(last_words)
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {int(number): signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in signals:
            signal.signal(number, before[number])


def _end_at_once(last_words: Callable[[], str]) -> NoReturn:
    """End, with what there is to say if that can be said."""
    try:
        said = last_words().encode(errors="backslashreplace")
        with suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, said)
    finally:
        os._exit(INTERRUPTED)
