"""The events of a log that is looked at from its end on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from telemetry.cli.options.event_choice import Chosen
from telemetry.cli.output.printable import printable
from telemetry.cli.tail.files import name_of
from telemetry.viewer.logs.entries import Entry, entry_of
from telemetry.viewer.logs.following import Followed
from telemetry.viewer.logs.last_lines import last_lines
from telemetry.viewer.logs.lines import LONGEST_LINE, Line, is_gzip, read_lines
from telemetry.viewer.logs.sources import Source


class TailedEvent(NamedTuple):
    """An event to show.

    Attributes:
        label: Which file it is of.
        text: Its line in the file.
        entry: What that says.
    """

    label: str
    text: bytes
    entry: Entry


class UnreadableLines:
    """Says that lines are no records: the first at once, how many at the end."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, where: str, reason: str) -> None:
        """Count one.

        Args:
            where: The file, and the place in it.
            reason: Why it is none.
        """
        self._count += 1
        if self._count == 1:
            click.echo(f"{printable(where)} is no record, and left out: {reason}", err=True)

    def say_rest(self) -> None:
        """Say how many there were, if there was more than one."""
        if self._count > 1:
            click.echo(f"Lines that are no records, and left out: {self._count:,}", err=True)


class Tailed:
    """The events of one file, from its last ones on.

    Args:
        source: The file, which need not be there yet.
        chosen: Which events are meant.
        bad: Called for lines that are no records.

    Attributes:
        label: Which file it is, by now: others may have come that are called so too.
    """

    def __init__(self, source: Source, chosen: Chosen, bad: UnreadableLines) -> None:
        self._path, self.label = source
        self._chosen = chosen
        self._bad = bad
        self._followed = Followed(self._path, self._on_bad)
        self._piped: Iterator[Line] = iter(())

    def last(self, count: int, *, unfinished: bool) -> list[TailedEvent]:
        """The last events of a file that is there.

        Args:
            count: How many.
            unfinished: Whether it ends here, so that a last line without its end is a line.
        """
        if not self._path.is_file():  # a pipe is read once, and from its start
            self._piped = read_lines(self._path, self._on_bad)
            return list(deque(self.new(), count)) if unfinished else []
        if is_gzip(self._path):
            found = deque(self.new(), count)
            found.extend(self._events(self._followed.rest()) if unfinished else ())
            return list(found)
        return self._last_of_plain(count, unfinished=unfinished)

    def new(self) -> Iterator[TailedEvent]:
        """Those that have come since.

        Raises:
            OSError: The file cannot be read, for another reason than that it is not there.
        """
        yield from self._events(self._piped)
        if not self._path.exists() or self._path.is_file():
            yield from self._events(self._followed.poll())

    def close(self) -> None:
        """Close the file."""
        self._followed.close()

    def _last_of_plain(self, count: int, *, unfinished: bool) -> list[TailedEvent]:
        found: list[TailedEvent] = []

        def wanted(text: bytes, offset: int) -> bool:
            event = self._event(Line(self._path, 0, text, offset))
            found.extend([event] if event else [])
            return event is not None

        _, end = last_lines(self._path, count, wanted)
        self.close()
        self._followed = Followed(self._path, self._on_bad, position=end)
        found.reverse()
        if unfinished:
            rest = _from(self._path, end)
            if len(rest) <= LONGEST_LINE:
                wanted(rest, end)
            else:
                self._bad(_at(self._path, end), f"longer than {LONGEST_LINE:,} bytes")
        return found[-count:] if count else []

    def _events(self, lines: Iterator[Line]) -> Iterator[TailedEvent]:
        return (event for event in map(self._event, lines) if event is not None)

    def _event(self, line: Line) -> TailedEvent | None:
        if not line.text.strip() or not self._chosen.may_be_in(line.text):
            return None
        try:
            entry = entry_of(line)
        except ValueError as error:
            if is_gzip(self._path):
                self._on_bad(line.number, str(error))
            else:
                self._bad(_at(self._path, line.offset), str(error))
            return None
        chosen = self._chosen(entry.event, entry.metadata)
        return TailedEvent(self.label, line.text, entry) if chosen else None

    def _on_bad(self, number: int, reason: str) -> None:
        # A plain file is not read from its start, so nobody knows which of its lines that is.
        self._bad(
            f"{name_of(self._path)}: " + (f"line {number}" if is_gzip(self._path) else "a line"),
            reason,
        )


def _at(path: Path, offset: int) -> str:
    return f"{name_of(path)}: the line at byte {offset:,}"


def _from(path: Path, place: int) -> bytes:
    """What a file has from some place on; not all of what is too long for a line."""
    with path.open("rb") as file:
        file.seek(place)
        return file.read(LONGEST_LINE + 1)
