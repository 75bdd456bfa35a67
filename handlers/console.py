"""Events as lines for a person who watches."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from handlers.console_lines import fields, line_of
from handlers.forks import renew_in_children
from handlers.records import Site
from handlers.text import value_text
from telemetry import ALL, EventName
from telemetry.events import find
from telemetry.values import to_python

if TYPE_CHECKING:
    from handlers.progress import Screen

STEP: Final = ("training", "step")
WORKFLOW_ENDS: Final = frozenset({("workflow", "run", "stop"), ("workflow", "run", "exception")})
MAX_STEP: Final = 2**63
ERASE_LINE: Final = "\r\x1b[2K"


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
        self._below_a_bar = False
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
                erase = ERASE_LINE if self._shares_a_bar(stream) else ""
                text = line_of(event, measurements, metadata).text
                # In one call, so that lines of several processes do not mix.
                output = _Output(stream)
                output.write(f"{erase}{text}\n")
                output.flush()
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
        if self._screen is not None:
            self._below_a_bar = self._progress is not False
        self._screen = None
        self._forked = True

    def _shares_a_bar(self, stream: TextIO) -> bool:
        """Whether the line that the cursor is on may be the bar of the process that forked."""
        return self._below_a_bar and stream is self._seen and _is_terminal(stream)

    def _look_at(self, stream: TextIO) -> None:
        """Find out what kind of stream it is, when it is another than the last time."""
        if stream is self._seen or self._forked:
            return
        self.close()
        self._seen, self._screen = stream, None
        if self._progress or _is_terminal(stream):
            from handlers.progress import Screen  # noqa: PLC0415 -- rich is for terminals only

            self._screen = Screen(cast("TextIO", _Output(stream)))

    def _draw(
        self,
        screen: Screen,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
    ) -> None:
        position = _position(metadata) if event == STEP and self._progress is not False else None
        if position is not None:
            step, total = position
            run = value_text(metadata.get("run_id")), total
            values = self._encodable(" | ".join(fields(measurements)))
            if screen.step(step, run, values):
                return
        if event in WORKFLOW_ENDS:
            screen.finish()
        line = line_of(event, measurements, metadata)
        screen.print(line._replace(text=self._encodable(line.text)))

    def _encodable(self, text: str) -> str:
        return _encodable(text, _encoding(self._seen))  # first, so that its width is known


def create(site: Site, *, stream: TextIO | None = None, progress: bool | None = None) -> Console:
    """Make the handler ``console``.

    When it hears everything, what comes many times a step (groups of gradients, single
    regularizers, batches) is left out, except for what went wrong. Events that were chosen with
    ``events=`` are all printed. Numbers have five significant digits.

    On a terminal, lines are coloured (not with the environment variable ``NO_COLOR``), and
    ``training.step`` events that have a ``total_steps`` move a progress bar instead of printing.
    A terminal with ``TERM=dumb`` gets plain lines. There is one bar at a time: steps of another run
    (another ``run_id`` or total) at the same time, and those beyond the total, are lines.

    The cursor stays at the end of the bar, because the program's own output is not redirected: what
    it prints, and the traceback of an error outside of a workflow, continues the bar's line, and
    the bar is drawn anew below. With ``progress=False`` there is none.

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
    return (step, total) if _is_count(step) and _is_count(total) and total > 0 else None


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_STEP


def _is_terminal(stream: TextIO) -> bool:
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and isatty() and os.environ.get("TERM") != "dumb"


class _Output:
    """A stream that takes any character: what its encoding has not is written out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = _encoding(stream)

    def write(self, text: str) -> None:
        self._stream.write(_encodable(text, self.encoding))

    def flush(self) -> None:
        flush = getattr(self._stream, "flush", None)
        if flush is not None:
            flush()


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)
