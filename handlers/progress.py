"""Drawing on a terminal: coloured lines above a progress bar."""

from __future__ import annotations

import time
from typing import Final, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from handlers.console_lines import Line

INTERVAL: Final = 0.1
"""Seconds between two drawings of the bar."""


class Screen:
    """A terminal: prints lines, and keeps a bar of the training steps below them.

    Nothing is drawn by a thread of its own, so a process that forks takes none along.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(
            file=stream,
            force_terminal=True,
            force_jupyter=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._done = 0.0
        self._total = 0.0
        self._drawn = 0.0

    def print(self, line: Line) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.refresh()  # what stands under the line is as new as the line
        # rich leaves colours out itself where NO_COLOR is set.
        self._console.print(Text(line.text, style=line.colour), soft_wrap=True)

    def step(self, step: float, total: float, values: str) -> None:
        """Move the bar; it is drawn ten times a second at most, and at its end."""
        if self._bar is not None and (total != self._total or step < self._done):
            self.finish()
        bar = self._bar or self._start(total)
        self._done = step
        bar.update(self._task, completed=step, values=values)
        if step >= total:
            self.finish()
        elif (now := time.monotonic()) - self._drawn >= INTERVAL:
            self._drawn = now
            bar.refresh()

    def finish(self) -> None:
        """Draw the bar as it is now, and leave it standing."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _start(self, total: float) -> Progress:
        self._bar = Progress(
            TextColumn("Step"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn(
                "{task.fields[values]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=total, values="")
        self._total = total
        self._bar.start()
        self._console.show_cursor()  # a process that is killed could not bring it back
        return self._bar
