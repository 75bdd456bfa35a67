"""The logs that a page shows: what is there, a part at a time, and what is written to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.parts import Part, find_parts
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import Source, each_once, find_logs, labels_of

SOON: Final = 1 << 24
"""Bytes that the first look reads, so that there is something to see soon. Each further one reads
more: what the page draws anew takes time of its own."""
GROWTH: Final = 8
MOST: Final = 1 << 30
"""Bytes that no look reads more than."""


class Snapshot(NamedTuple):
    """What was read so far.

    Attributes:
        records: The records.
        runs: The labels of the runs.
        columns: The metrics by name.
        generation: Another number where what was told of rows before no longer holds.
        last: The ``rowid`` of the last record.
        size: How many records there are.
    """

    records: Records
    runs: tuple[str, ...]
    columns: Mapping[str, Column]
    generation: int
    last: int
    size: int


class Seen(NamedTuple):
    """What tells one look from another.

    Attributes:
        sources: How many logs there are.
        restarts: How often one was read anew.
        reads: How often something was read.
        unread: How many bytes were left.
    """

    sources: int
    restarts: int
    reads: int
    unread: int


class Watched:
    """Some logs, and those that come to their directories.

    Args:
        paths: Files, patterns and directories, as `find_logs` takes them. One that has no log yet
            is waited for.

    Attributes:
        snapshot: What was read so far; None before the first log is there.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.snapshot: Snapshot | None = None
        self._most = SOON
        self._records: Records | None = None
        self._parts: list[Part] = []
        self._seen = Seen(0, 0, 0, 0)

    @property
    def unread(self) -> int:
        """How many bytes that are there are left to the next looks."""
        return 0 if self._records is None else self._records.unread

    def look(self) -> bool:
        """Read what is new.

        Returns:
            Whether anything is.

        Raises:
            OSError: A file cannot be read.
        """
        paths = self._paths()
        if self._records is None:
            if not paths:
                return False
            self._records = Records((), follow=True)
        records = self._records
        known = [source.path for source in records.sources]
        every = each_once([*known, *paths])  # one that was deleted stays, and what was read of it
        if len(every) > len(known):
            records.extend(tuple(map(Source, every, labels_of(every))))
        records.refresh(self._most)
        self._most = min(GROWTH * self._most, MOST)
        seen = Seen(len(every), records.restarts, records.reads, records.unread)
        if self.snapshot is not None and seen == self._seen:
            return False
        self.snapshot = self._next(records, self.snapshot, seen)
        self._seen = seen
        return True

    def interrupt(self) -> None:
        """Let a look that goes on in another thread end, with an error."""
        if self._records is not None:
            self._records.connection.interrupt()

    def _paths(self) -> list[Path]:
        """The logs that are there by now."""
        found: list[Path] = []
        for path in self.paths:
            with suppress(FileNotFoundError):  # it may come yet
                found += [source.path for source in find_logs(path)]
        return found

    def _next(self, records: Records, before: Snapshot | None, seen: Seen) -> Snapshot:
        parts = find_parts(records)
        is_anew = seen.restarts != self._seen.restarts  # what was found in it may be gone
        is_other = seen.sources != self._seen.sources or parts != self._parts or is_anew
        self._parts = parts
        if before is None or is_anew:
            columns = find_columns(records)
        else:
            columns = _joined(before.columns, find_columns(records, after=before.last))
        return Snapshot(
            records,
            find_runs(records) if is_other or before is None else before.runs,
            columns,
            0 if before is None else before.generation + is_other,
            _last_row(records),
            _count_of(records),
        )


def _last_row(records: Records) -> int:
    ((last,),) = records.rows("SELECT coalesce(max(rowid), -1) FROM records")
    return int(last)


def _count_of(records: Records) -> int:
    ((count,),) = records.rows("SELECT count(*) FROM records")
    return int(count)


def _joined(before: Mapping[str, Column], new: Mapping[str, Column]) -> dict[str, Column]:
    """Metrics with the places that are new; a place with text by now is read as one with text."""
    joined = dict(before)
    for name, column in new.items():
        known = joined[name].places if name in joined else ()
        places = {place._replace(textual=False, only_text=False): place for place in known}
        for place in column.places:
            bare = place._replace(textual=False, only_text=False)
            places[bare] = places.get(bare, place) if bare == place else place
        joined[name] = Column(name, tuple(places.values()))
    return joined
