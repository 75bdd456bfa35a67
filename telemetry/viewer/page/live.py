"""Looks at the logs in the background, and says when something is new."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Final

from telemetry.viewer.page.watched import Watched

PAUSE: Final = 0.3
"""Seconds between two looks."""
SHARE: Final = 10
"""A look is followed by a pause of so many times as long as it took: a training that runs on the
same machine keeps it."""
INTERRUPTED: Final = 0.05
"""Seconds until a look that was interrupted, and went on, is interrupted again."""
ALIVE: Final = 15.0
"""Seconds after which a listener hears something even if nothing is new, so that a connection that
is gone is noticed."""


class Live:
    """Looks at logs in a thread.

    Args:
        watched: The logs.

    Attributes:
        watched: The logs.
        version: Another number whenever something is new.
        problem: Why the last look failed, "" if it did not.
    """

    def __init__(self, watched: Watched) -> None:
        self.version = 0
        self.problem = ""
        self.watched = watched
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainbus-page")
        self._lock = threading.RLock()  # a signal may stop this while its thread holds it
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and let go who listens."""
        self._stopped.set()
        self._call()

    def close(self) -> None:
        """Stop, and wait for the last look; the interpreter must not end while the engine reads."""
        self.stop()
        while self._thread.is_alive():
            self.watched.interrupt()
            self._thread.join(INTERRUPTED)

    async def changes(self) -> AsyncIterator[int | None]:
        """The versions as they come, the present one first.

        Yields:
            A version, or None where there was no other for long. It ends when this is stopped.
        """
        changed = asyncio.Event()
        listener = (asyncio.get_running_loop(), changed)
        with self._lock:
            self._listeners.add(listener)
        try:
            while not self._stopped.is_set():
                changed.clear()
                yield self.version
                while not await _is_set(changed, ALIVE):
                    yield None
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            is_behind = self.watched.snapshot is None or self.watched.unread > 0
            if self._look():
                self.version += 1
                self._call()
            if self.watched.unread and not self.problem:
                continue  # what had been written before the page was begun is not all read yet
            took = 0.0 if is_behind else time.monotonic() - began
            self._stopped.wait(max(PAUSE, SHARE * took))

    def _look(self) -> bool:
        before = self.problem
        try:
            is_new = self.watched.look()
            self.problem = ""
        except Exception as error:  # whatever it is, the page says it and goes on
            is_new = False
            self.problem = f"{type(error).__name__}: {error}"
        return is_new or self.problem != before

    def _call(self) -> None:
        with self._lock:
            for loop, changed in self._listeners:
                loop.call_soon_threadsafe(changed.set)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
