"""Ctrl-C and ``SIGTERM`` for commands that have something to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

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
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, last_words().encode())
            os._exit(INTERRUPTED)
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
