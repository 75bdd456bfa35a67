"""Events as lines for a person who watches."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO

from handlers.console_lines import Line, fields, line_of
from handlers.forks import renew_in_children
from handlers.records import Site
from telemetry import ALL, EventName
from telemetry.events import find
from telemetry.values import to_python

if TYPE_CHECKING:
    from handlers.progress import Screen

STEP: Final = ("training", "step")
WORKFLOW_ENDS: Final = frozenset({("workflow", "run", "stop"), ("workflow", "run", "exception")})


class Console:
    """A sink that prints; on a terminal with colours and a progress bar.

    Args:
        stream: Where to; None is ``sys.stdout`` at the time of each line.
        progress: Whether to draw a bar; None is on a terminal only.
        detail: Whether events that come many times a step are printed too.
    """

    delivery = "ordered"

    def __init__(self, stream: TextIO | None, progress: bool | None, *, detail: bool) -> None:
        self._stream = stream
        self._progress = progress
        self._detail = detail
        self._seen: TextIO | None = None
        self._screen: Screen | None = None
        self._forked = False
        self._lock = threading.RLock()
        renew_in_children(self)

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Print one event."""
        stream = sys.stdout if self._stream is None else self._stream
        if stream is None or not (self._detail or _is_for_people(event)):
            return
        with self._lock:
            self._look_at(stream)
            if self._screen is None:
                _write(stream, line_of(event, measurements, metadata))
            else:
                self._draw(self._screen, event, measurements, metadata)

    def close(self) -> None:
        """Leave the bar as it is."""
        with self._lock:
            if self._screen is not None:
                self._screen.finish()

    def after_fork(self) -> None:
        """In a forked child: the terminal's last line is the parent's, so print plainly."""
        self._lock = threading.RLock()
        self._screen = None
        self._forked = True

    def _look_at(self, stream: TextIO) -> None:
        """Find out what kind of stream it is, when it is another than the last time."""
        if stream is self._seen or self._forked:
            return
        self.close()
        self._seen, self._screen = stream, None
        if self._progress or _is_terminal(stream):
            from handlers.progress import Screen  # noqa: PLC0415 -- rich is for terminals only

            self._screen = Screen(stream)

    def _draw(
        self,
        screen: Screen,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
    ) -> None:
        position = _position(metadata) if event == STEP and self._progress is not False else None
        if position is not None:
            screen.step(*position, " | ".join(fields(measurements)))
            return
        if event in WORKFLOW_ENDS:
            screen.finish()
        screen.print(line_of(event, measurements, metadata))


def create(site: Site, *, stream: TextIO | None = None, progress: bool | None = None) -> Console:
    """Make the handler ``console``.

    When it hears everything, what comes many times a step (groups of gradients, single
    regularizers, batches) is left out, except for what went wrong. Events that were chosen with
    ``events=`` are all printed. Numbers have five significant digits.

    On a terminal, lines are coloured (not with the environment variable ``NO_COLOR``), and
    ``training.step`` events that have a ``total_steps`` move a progress bar instead of printing.
    A terminal with ``TERM=dumb`` gets plain lines.

    Args:
        site: Where it is attached.
        stream: Where to print, by default ``sys.stdout`` as it is at the time of each line.
        progress: False prints a line for each step on a terminal too; True takes the stream for a
            terminal.

    Raises:
        TypeError: The stream cannot be written to, or ``progress`` is no boolean.
    """
    if stream is not None and not callable(getattr(stream, "write", None)):
        raise TypeError(
            f"Handler {site.handler_id!r}: stream must be a text stream with a write method, got "
            f"{stream!r} ({type(stream).__name__}). Write stream=sys.stderr."
        )
    if not isinstance(progress, bool | None):
        raise TypeError(
            f"Handler {site.handler_id!r}: progress must be None, True or False, got {progress!r} "
            f"({type(progress).__name__})."
        )
    return Console(stream, progress, detail=ALL not in site.events)


@lru_cache(maxsize=4096)
def _is_for_people(event: EventName) -> bool:
    spec = find(event)
    return spec is None or not spec.detail


def _position(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """How far the training is, if the event says."""
    step, total = to_python(metadata.get("step")), to_python(metadata.get("total_steps"))
    numbers = isinstance(step, int | float) and isinstance(total, int | float)
    if numbers and math.isfinite(step) and math.isfinite(total) and total > 0:
        return step, total
    return None


def _is_terminal(stream: TextIO) -> bool:
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and isatty() and os.environ.get("TERM") != "dumb"


def _write(stream: TextIO, line: Line) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = line.text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(f"{text}\n")  # in one call, so that lines of several processes do not mix
    flush = getattr(stream, "flush", None)
    if flush is not None:
        flush()
