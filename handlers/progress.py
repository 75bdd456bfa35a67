"""Drawing on a terminal: coloured lines above a progress bar."""

from __future__ import annotations

import time
from typing import Final, TextIO, TypeAlias

from rich.console import Console, OverflowMethod
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from handlers.console_lines import Line

INTERVAL: Final = 0.1
"""Seconds between two drawings of the bar."""
PATIENCE: Final = 10
"""Steps of another run in a row, after which the bar is that run's."""

Run: TypeAlias = tuple[str, float]
"""Whose bar it is: the run's name, and its total."""


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
        self._run: Run = ("", 0.0)
        self._other: Run = ("", 0.0)
        self._waited = 0
        self._drawn = 0.0

    def print(self, line: Line) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.refresh()  # what stands under the line is as new as the line
        # rich leaves colours out itself where NO_COLOR is set.
        self._console.print(Text(line.text, style=line.colour), soft_wrap=True)

    def step(self, step: float, run: Run, values: str) -> bool:
        """Move the bar; it is drawn ten times a second at most, and at its end.

        Returns:
            False if there is no bar for this step: the bar is another run's, or the run has
            reached its total without one.
        """
        bar = self._bar_for(step, run)
        if bar is None:
            return False
        self._done = step
        bar.update(self._task, completed=step, values=values)
        if step >= run[1]:
            self.finish()
        elif (now := time.monotonic()) - self._drawn >= INTERVAL:
            self._drawn = now
            bar.refresh()
        return True

    def finish(self) -> None:
        """Draw the bar as it is now, and leave it standing."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _bar_for(self, step: float, run: Run) -> Progress | None:
        mine = run == self._run
        if not mine and step >= run[1]:
            return None
        if self._bar is not None and (step < self._done if mine else self._waits_enough(run)):
            self.finish()
        if self._bar is None:
            return self._start(run) if step < run[1] else None
        if mine:
            self._waited = 0
        return self._bar if mine else None

    def _waits_enough(self, run: Run) -> bool:
        """Whether only this run has made steps for a while, so the bar's own run has ended."""
        self._waited = self._waited + 1 if run == self._other else 1
        self._other = run
        return self._waited > PATIENCE

    def _start(self, run: Run) -> Progress:
        # rich's ellipsis is a character that other encodings do not have.
        unicode = self._console.encoding.startswith("utf")
        overflow: OverflowMethod = "ellipsis" if unicode else "crop"
        fixed = Column(no_wrap=True, overflow=overflow)
        self._run, self._waited = run, 0
        self._bar = Progress(
            TextColumn("Step", table_column=fixed),
            BarColumn(bar_width=20, table_column=fixed),
            MofNCompleteColumn(table_column=fixed),
            _Values(overflow),
            TimeRemainingColumn(table_column=fixed),
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=run[1], values="")
        self._bar.start()
        self._console.show_cursor()  # a process that is killed could not bring it back
        return self._bar


class _Values(ProgressColumn):
    """The measurements, in the width that the other columns leave.

    rich narrows first the columns that may wrap: this one may, its text may not.
    """

    def __init__(self, overflow: OverflowMethod) -> None:
        super().__init__()
        self._overflow = overflow

    def render(self, task: Task) -> Text:
        return Text(task.fields["values"], no_wrap=True, overflow=self._overflow)
