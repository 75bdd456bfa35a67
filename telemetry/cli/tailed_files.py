"""Which files are looked at from their end on, while more of them come."""

from __future__ import annotations

from collections.abc import Sequence
from glob import has_magic
from pathlib import Path

import click

from telemetry.cli.printable import printable
from telemetry.viewer.logs.sources import find_logs, identity_of, newest_log


class TailedFiles:
    """The files that some paths stand for by now.

    Args:
        paths: Logs; patterns; directories, of which the log that was written last is meant, and
            those that come later.
        follow: Whether what is not there yet is waited for.

    Attributes:
        all: Those that were found so far.
    """

    def __init__(self, paths: Sequence[Path], *, follow: bool) -> None:
        self._paths = paths
        self._follow = follow
        self._known: set[object] = set()
        self._older: dict[Path, set[Path]] = {}
        self._missed: set[Path] = set()
        self.all: list[Path] = []

    def new(self) -> list[Path]:
        """Those that were not found before; one that was moved is none.

        Raises:
            FileNotFoundError: One is missing, and is not waited for.
        """
        found: dict[Path, None] = {}
        for path in (file for one in self._paths for file in self._files(one)):
            identity = identity_of(path)
            if path not in self.all and identity not in self._known:
                found[path] = None
            self._known.add(identity)
        self.all += found
        return list(found)

    def _files(self, path: Path) -> list[Path]:
        try:
            logs = [source.path for source in find_logs(path)]
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
