"""What a command finds out, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

import click

WIDTH: Final = 20
"""Where the text of a stage begins."""


class Failed(Exception):  # noqa: N818 -- it says that a stage has, and is no error of the program
    """A stage was not passed.

    Args:
        stage: Its name.
        reason: An error, or why in words.
        *more: Further lines.
    """

    def __init__(self, stage: str, reason: BaseException | str, *more: str) -> None:
        said = reason if isinstance(reason, str) else _said(reason)
        super().__init__(stage, said)
        self.stage = stage
        self.lines = (said, *more)


class Stages:
    """Prints each stage as it is passed, or as what is inside ``with`` raises `Failed`.

    Example:
        >>> stages = Stages()
        >>> with stages:
        ...     stages.ok("registered", "jsonl, of trainbus 0.1.0")
        ...     raise Failed("options", "path must name a file")
        ok      registered  jsonl, of trainbus 0.1.0
        FAILED  options     path must name a file
        >>> stages.passed
        False

    Attributes:
        passed: Whether no stage has failed.
        redact: Takes from a text what must not be shown.
    """

    def __init__(self) -> None:
        self.passed = True
        self.redact: Callable[[object], str] = str
        self._logged: list[str] = []
        self._erroneous = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Failed):
            return False
        self._fail(error.stage, error.lines)
        return True

    def ok(self, stage: str, *lines: str) -> None:
        """A stage was passed, unless an error was logged meanwhile."""
        if self._erroneous:
            self._fail(stage, ())
        else:
            self._print(click.style("ok", fg="green") + " " * 4, stage, lines)

    def log(self, text: str, is_error: bool) -> None:
        """Print something with the stage that comes next: it was logged meanwhile."""
        # What a failed handler raised is what its stage says.
        if " failed on event " not in text:
            self._logged.append(text)
            self._erroneous = self._erroneous or is_error

    def say(self, text: str) -> None:
        """Print a line of its own."""
        click.echo(f"\n{self.redact(text)}")

    def _fail(self, stage: str, lines: tuple[str, ...]) -> None:
        self.passed = False
        self._print(click.style("FAILED", fg="red", bold=True), stage, lines)

    def _print(self, mark: str, stage: str, lines: tuple[str, ...]) -> None:
        logged, self._logged, self._erroneous = self._logged, [], False
        text = self.redact("\n".join(line for line in (*lines, *logged) if line))
        indented = text.replace("\n", "\n" + " " * WIDTH)
        click.echo(f"{mark}  {stage:<{WIDTH - 8}}{indented}")


def _said(error: BaseException) -> str:
    """What is wrong; the kind of error as well, where that is not plain from the stage."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror  # without the number
    plain = isinstance(error, ImportError | OSError | TypeError | ValueError) and str(error)
    return str(error) if plain else f"{type(error).__name__}: {error}"
