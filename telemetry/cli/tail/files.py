"""Which files are looked at from their end on, while more of them come."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Final

import click

from telemetry.cli.output.printable import printable
from telemetry.viewer.logs.sources import find_files, identity_of, labels_of, newest_log

STDIN: Final = Path("/dev/stdin")


def name_of(path: Path) -> str:
    """What a file is called in words.

    Example:
        >>> name_of(STDIN), name_of(Path("runs/a.jsonl"))
        ('standard input', 'runs/a.jsonl')
    """
    return "standard input" if path == STDIN else str(path)


class TailedFiles:
    """The files that some paths stand for by now.

    Args:
        paths: Logs; ``-`` for standard input; patterns; directories, of which the log that was
            written last is meant, and those that come later.
        follow: Whether what is not there yet is waited for.

    Attributes:
        all: Those that were found so far.

    Raises:
        click.ClickException: Standard input is meant, and was closed at the start.
    """

    def __init__(self, paths: Sequence[Path], *, follow: bool) -> None:
        self._paths = [STDIN if path == Path("-") else path for path in paths]
        if STDIN in self._paths and sys.stdin is None:
            raise click.ClickException("Standard input is closed.")
        self._follow = follow
        self._known: set[object] = set()
        self._older: dict[Path, set[Path]] = {}
        self._missed: set[Path] = set()
        self.all: list[Path] = []

    def new(self) -> list[Path]:
        """Those that were not found before; one that was moved is none.

        Raises:
            FileNotFoundError: One is missing, and is not waited for.
            click.ClickException: A pipe is to be followed beside others: who waits for what it has
                next does not see them.
        """
        found: dict[Path, None] = {}
        for path in (file for one in self._paths for file in self._files(one)):
            identity = identity_of(path)
            if path not in self.all and identity not in self._known:
                found[path] = None
            self._known.add(identity)
        self.all += found
        if found and self.has_pipe and self._follow and len(self.all) > 1:
            raise click.ClickException(
                "A pipe is followed alone. Leave --follow, or the other files."
            )
        return list(found)

    @property
    def labels(self) -> list[str]:
        """What tells each from the others."""
        labels = zip(self.all, labels_of(tuple(self.all)), strict=True)
        return [name_of(path) if path == STDIN else label for path, label in labels]

    @property
    def has_pipe(self) -> bool:
        """Whether one of them is read once, from its start to its end."""
        return any(path.exists() and not path.is_file() for path in self.all)

    def _files(self, path: Path) -> list[Path]:
        try:
            logs = list(find_files(path))
        except FileNotFoundError as error:
            if not self._follow:
                raise
            if path not in self._missed:
                click.echo(f"{printable(str(error))} Waiting for it.", err=True)
            self._missed.add(path)
            return [] if path.is_dir() or has_magic(str(path)) else [path]
        if not path.is_dir():
            return logs
        if path not in self._older:
            self._older[path] = set(logs) - {newest_log(path)}
        return [log for log in logs if log not in self._older[path]]
