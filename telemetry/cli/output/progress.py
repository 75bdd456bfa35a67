"""What a command does, for who waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import click

from telemetry.cli.output.printable import printable_lines

REFRESH: Final = 0.5
"""Seconds between two lines of progress."""


def write_anew(line: str = "", *, ended: bool = False) -> None:
    """Write a line of standard error, which is a terminal, in place of what it has.

    Args:
        line: The line, which has no colours where none are wanted.
        ended: Whether it stays.
    """
    # To click, what erases a line is a colour.
    click.echo(f"\r\x1b[K{line}", err=True, nl=ended, color=True)


class Progress:
    """Says on standard error what a command does; on a terminal, a line that is written anew.

    Args:
        shown: Whether there is such a line.
        what: What is counted.
        clock: Seconds of a clock that only goes forward.

    Example:
        >>> Progress(shown=False)(1000)
    """

    def __init__(
        self,
        *,
        shown: bool,
        what: str = "events",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown = shown
        self._what = what
        self._clock = clock
        self._last = (clock(), 0)
        context = click.get_current_context(silent=True)
        self._color = (
            context.color if context else None
        )  # other threads, which log, have no context

    def __call__(self, count: int, where: Callable[[], str] | None = None) -> None:
        """Write the line, twice a second at most.

        Args:
            count: How many so far.
            where: Tells how far that is, where it is known.
        """
        then, events = self._last
        passed = self._clock() - then
        if not self._shown or passed < REFRESH:
            return
        self._last = (then + passed, count)
        line = f"{count:,} {self._what}, {(count - events) / passed:,.0f} a second"
        line += f", {where()}" if where is not None else ""
        write_anew(line)

    def end(self) -> None:
        """Leave nothing of the line."""
        if self._shown and self._last[1]:
            write_anew()

    def log(self, text: str, is_error: bool) -> None:
        """Say what was logged."""
        self._say(printable_lines(text), "red" if is_error else None)

    def say(self, text: str) -> None:
        """Say something that stays."""
        self._say(printable_lines(text))

    def _say(self, text: str, colour: str | None = None) -> None:
        styled = click.style(text, fg=colour) if colour and self._color is not False else text
        if self._shown:
            write_anew(styled, ended=True)
        else:
            click.echo(styled, err=True, color=self._color)
