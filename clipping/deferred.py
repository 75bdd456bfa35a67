"""Events that only a device knows whether there are to be, sent when it has said so.

Nothing here waits in the middle of a run: an event is sent by the next clipping that finds its
value arrived, and the last ones when a `clip_context` is left or the interpreter exits.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from clipping.records import Later

_waiting: deque[tuple[Later, Callable[[Any], None]]] = deque()
_lock = threading.Lock()


def when_known(value: Later, act: Callable[[Any], None]) -> None:
    """Call a function with a value once it has arrived, in order of the calls."""
    if not _waiting:
        atexit.unregister(settle_all)  # once, and before the handlers that attached earlier close
        atexit.register(settle_all)
    _waiting.append((value, act))


def settle() -> None:
    """Act on what has arrived."""
    while _act_on_first(wait=False):
        pass


def settle_all() -> None:
    """Act on everything; waits for the devices."""
    while _act_on_first(wait=True):
        pass


def _act_on_first(*, wait: bool) -> bool:
    with _lock:  # in which nothing waits: another thread may be training
        if not _waiting or not (wait or _waiting[0][0].ready()):
            return False
        value, act = _waiting.popleft()
    act(value.value())
    return True
