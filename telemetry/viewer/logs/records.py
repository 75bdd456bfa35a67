"""The records of log files, in a table of DuckDB's.

Lines are read, parsed and kept by the engine, which spills to disk what does not fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

from telemetry.values import DEEPEST, END_OF_TIME, is_too_deep
from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.blocks import blocks_of
from telemetry.viewer.logs.content import Content
from telemetry.viewer.logs.depth import depth_of
from telemetry.viewer.logs.engine import (
    can_be_named,
    connect,
    interruptible,
    lines_of,
    take_rejected,
)
from telemetry.viewer.logs.foreign import STEPS, TIMES, TOO_DEEP, used_of
from telemetry.viewer.logs.lines import GZIPPED, LONGEST_LINE, MAGIC, read_lines
from telemetry.viewer.logs.parsing import parse_json
from telemetry.viewer.logs.sources import Source
from telemetry.viewer.logs.times import time_in

OURS: Final = 0
"""The form of a record that has an event, measurements and metadata."""
NESTED: Final = 1
"""Of one whose metrics are in ``metrics``."""
SINGLE: Final = 2
"""Of one with a ``metric`` and its ``value``."""
FLAT: Final = 3
"""Of one whose numbers are metrics."""
UNTOLD: Final = 4
"""Of one that is none of the first, as long as nobody has looked which."""
BLANK: Final = 5
"""Of a line with nothing in it."""
SUSPECT: Final = 6
"""Of a line with so many lists and objects that they may be too deep in each other."""
ALL: Final = 2**63
"""Bytes, more than any file has."""
BELOW: Final = 7
"""Calls between the warning and who asked for the records."""

_RECORD: Final = (
    '{"timestamp": "VARCHAR", "event": "VARCHAR", "measurements": "JSON", "metadata": "JSON"}'
)
_FIELDS: Final = '"epoch": "DOUBLE", "run_id": "VARCHAR", "attempt": "INTEGER", "rank": "INTEGER"'
_PLACE: Final = f'{{"step": "DOUBLE", {_FIELDS}}}'
_TABLE: Final = """
CREATE TABLE records (
    source USMALLINT, form UTINYINT, timestamp TIMESTAMP, event VARCHAR, step DOUBLE, epoch DOUBLE,
    run_id VARCHAR, attempt INTEGER, rank INTEGER, measurements JSON, metadata JSON)"""
_LINES: Final = "<lines>"
_HAS_MEASURED: Final = "{0}event IS NOT NULL AND starts_with({0}measurements::VARCHAR, '{{')"
_IS_OURS: Final = f"({_HAS_MEASURED.format('one.')})"
_OPENED: Final = """(length(text) - length(replace(text, '{', '')) + CASE WHEN contains(text, '[')
        THEN length(text) - length(replace(text, '[', '')) ELSE 0 END)"""
# The engine computes an expression of a subquery again wherever it is used: so `text`, and not what
# it was parsed to, is what stands in the branches that hardly any line takes.
_INSERT: Final = f"""
INSERT INTO records
SELECT $source,
    CASE WHEN (strlen(text) > {6 * DEEPEST} OR contains(text, '[')) AND {_OPENED} > {DEEPEST}
            THEN {SUSPECT}
        WHEN {_IS_OURS} THEN {OURS}
        WHEN try_cast(text AS JSON) IS NOT NULL THEN {UNTOLD}
        WHEN coalesce(trim(text, ' \t\r'), '') = '' THEN {BLANK} END,
    {time_in("one.timestamp", "json_type(text, '$.timestamp')")}, one.event,
    place.step, place.epoch, place.run_id, place.attempt, place.rank,
    one.measurements, CASE WHEN {_IS_OURS} THEN one.metadata ELSE try_cast(text AS JSON) END
FROM (
    SELECT text, one, from_json(one.metadata, '{_PLACE}') AS place
    FROM (SELECT text, TRY(from_json(text, '{_RECORD}')) AS one FROM {_LINES})
)"""
_THEIR_TIME: Final = f"coalesce({', '.join(f'metadata->>{key!r}' for key in TIMES)})"
_KINDS: Final = ", ".join(f"nullif(json_type(metadata, {key!r}), 'NULL')" for key in TIMES)
_ITS_KIND: Final = f"coalesce({_KINDS})"
_THEIR_STEPS: Final = ", ".join(f'"{key}": "DOUBLE"' for key in STEPS)
_THEIR_PLACE: Final = f"from_json(metadata, '{{{_THEIR_STEPS}, {_FIELDS}}}')"
_THEIR_STEP: Final = f"coalesce({', '.join(f'{_THEIR_PLACE}.{key}' for key in STEPS)})"
_TELL: Final = f"""
UPDATE records SET
    form = CASE WHEN NOT starts_with(ltrim(metadata::VARCHAR), '{{') THEN NULL
        WHEN json_type(metadata, '$.metrics') = 'OBJECT' THEN {NESTED}
        WHEN json_type(metadata, '$.metric') = 'VARCHAR' THEN {SINGLE}
        ELSE {FLAT} END,
    timestamp = {time_in(_THEIR_TIME, _ITS_KIND)},
    event = coalesce(event, metadata->>'_type', ''),
    step = {_THEIR_STEP},
    epoch = {_THEIR_PLACE}.epoch,
    run_id = {_THEIR_PLACE}.run_id,
    attempt = {_THEIR_PLACE}.attempt,
    rank = {_THEIR_PLACE}.rank,
    measurements = CASE WHEN json_type(metadata, '$.metrics') = 'OBJECT' THEN metadata->'metrics'
        WHEN json_type(metadata, '$.metric') = 'VARCHAR'
            THEN json_object(metadata->>'metric', metadata->'value')
        ELSE metadata END
WHERE form = {UNTOLD}"""
_NESTED: Final = f"""
SELECT rowid, {_HAS_MEASURED.format("")}, measurements::VARCHAR, metadata::VARCHAR
FROM records WHERE form = {SUSPECT}"""
_CLEAR: Final = f"""
UPDATE records SET form = CASE WHEN list_contains($deep, rowid) THEN NULL
    WHEN {_HAS_MEASURED.format("")} THEN {OURS} WHEN metadata IS NOT NULL THEN {UNTOLD} END
WHERE form = {SUSPECT}"""
_IN_RANGE: Final = (
    "UPDATE records SET step = NULL WHERE NOT isfinite(step)",
    "UPDATE records SET epoch = NULL WHERE NOT isfinite(epoch)",
    f"""UPDATE records SET timestamp = NULL WHERE timestamp
        NOT BETWEEN make_timestamp(0) AND make_timestamp({(END_OF_TIME - 1) // 1000})""",
)


class Records:
    """The records of some log files; a context manager that lets the engine go.

    Args:
        sources: The files. Lines that are no records are left out, with a warning.
        follow: Whether what is written later is wanted, so that a line without an end is left
            to the next `refresh`.

    Attributes:
        connection: The engine's, with the table ``records``.
        sources: The files.
        bad_lines: How many lines of each file were no records.
        restarts: How often a file was read anew, because it was cut or is another one by now.
        unread: How many bytes the last `refresh` found, and left to the next.
        reads: How often something was read.
    """

    def __init__(self, sources: Sequence[Source], *, follow: bool = False) -> None:
        self.sources: tuple[Source, ...] = ()
        self.connection = connect()
        self.connection.execute(_TABLE)
        self.bad_lines: list[int] = []
        self.restarts = 0
        self.unread = 0
        self.reads = 0
        self._follow = follow
        self._contents: list[Content] = []
        self._begun: set[int] = set()
        self._broken: set[int] = set()
        self._is_settled = True
        self.extend(sources)
        if follow:
            self.refresh()

    def rows(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        return interruptible(
            self.connection, lambda: self.connection.execute(sql, parameters).fetchall()
        )

    def extend(self, sources: Sequence[Source]) -> None:
        """Take files that were not there before, and new labels of those that were.

        Args:
            sources: The new files, and any that are known already. Where files are followed, the
                next `refresh` reads what is in the new ones.
        """
        labels = {source.path: source.label for source in sources}
        known = [
            source._replace(label=labels.pop(source.path, source.label)) for source in self.sources
        ]
        self.sources = (*known, *(Source(path, label) for path, label in labels.items()))
        for number in range(len(known), len(self.sources)):
            self._contents.append(Content(self.sources[number].path))
            self.bad_lines.append(0)
            self._begun.add(number)
            if self._follow:
                self.unread += self._contents[number].unread
            else:
                self._load(number)
        self._settle()

    def refresh(self, most: int | None = None) -> int:
        """Read what was written since, of files that are followed.

        Args:
            most: How many bytes are read; the others are for the next time. None for all.

        Returns:
            How many records there are more. A file that was cut, or is another one by now, is read
            anew, and so is one on which the engine has failed; of one that was deleted stays what
            was read.
        """
        before = self._count()
        left = ALL if most is None else most
        unread = 0
        for number in range(len(self._contents)):
            if number in self._broken or self._contents[number].has_begun_anew():
                self._begin_anew(number)
            here = self._contents[number].unread
            size = min(here, left)
            if size:
                self._read(number, size)
            left -= size
            unread += here - size
        self._settle()
        self.unread = unread
        return self._count() - before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.connection.close()

    def _load(self, number: int) -> None:
        """Read a file to whatever is its end."""
        content = self._contents[number]
        if content.is_plain and can_be_named(content.path):
            self._insert(number, lines_of(content.path))
        else:
            self._insert_blocks(number, content.lines())

    def _read(self, number: int, size: int) -> None:
        """Read on in a file. What was taken from it is gone if the engine fails."""
        self._broken.add(number)
        self._insert_blocks(number, self._contents[number].whole_lines(size))
        self._broken.discard(number)

    def _begin_anew(self, number: int) -> None:
        self.restarts += 1
        self._contents[number] = Content(self._contents[number].path)
        self.bad_lines[number] = 0
        self._begun.add(number)
        self._broken.discard(number)
        self.rows("DELETE FROM records WHERE source = ?", [number])

    def _insert_blocks(self, number: int, pieces: Iterable[bytes]) -> None:
        with closing(blocks_of(pieces)) as blocks:
            for block in blocks:
                self._insert(number, lines_of(block))

    def _insert(self, number: int, lines: str) -> None:
        self.reads += 1
        self._is_settled = False
        self.rows(_INSERT.replace(_LINES, lines), {"source": number})
        self.bad_lines[number] += take_rejected(self.connection)

    def _settle(self) -> None:
        """Look through the lines of all files that were read: which are records, of which form."""
        if not self._is_settled:
            self._tell_forms()
            self._is_settled = True
        for number in [each for each in self._begun if not self._is_behind(each)]:
            self._begun.discard(number)
            self._end_reading(number)

    def _tell_forms(self) -> None:
        forms = {form for (form,) in self.rows("SELECT DISTINCT form FROM records")}
        if SUSPECT in forms:
            self._leave_out_deep()
        if forms & {UNTOLD, SUSPECT}:
            self.rows(_TELL)
        for statement in _IN_RANGE:
            self.rows(statement)
        bad = self.rows("SELECT source, count(*) FROM records WHERE form IS NULL GROUP BY source")
        for number, count in bad:
            self.bad_lines[number] += count
        if bad or BLANK in forms:
            self.rows(f"DELETE FROM records WHERE form IS NULL OR form = {BLANK}")

    def _is_behind(self, number: int) -> bool:
        return self._follow and self._contents[number].unread > 0

    def _end_reading(self, number: int) -> None:
        """Say what is wrong with a file that was read to its end for the first time."""
        if self._contents[number].is_damaged:
            self.bad_lines[number] += 1
        if self.bad_lines[number]:
            self._warn(self._contents[number])

    def _leave_out_deep(self) -> None:
        """Make none of records that are nested too deep for the engine, or for who replays them."""
        deep = []
        for row, is_ours, *parts in self.rows(_NESTED):
            depth = max(depth_of(text or "") for text in parts) + bool(is_ours)
            deep += [row] if depth > DEEPEST else []
        self.rows(_CLEAR, {"deep": deep})

    def _warn(self, content: Content) -> None:
        """Say which lines are no records: the engine does not count lines."""
        bad = BadLines(content.path)
        for line in read_lines(content.path, bad):
            if line.text.strip(b" \t\r") and (reason := self._badness(line.text)):
                bad(line.number, reason)
        bad.warn(stacklevel=BELOW)

    def _badness(self, text: bytes) -> str:
        """Why a line is no record; "" if it is one."""
        if len(text) > LONGEST_LINE:
            return f"longer than {LONGEST_LINE:,} bytes"
        if text.startswith(MAGIC):
            return GZIPPED
        try:
            record = parse_json(text)
        except ValueError as error:
            return self._badness_of_others(text, str(error))
        if not isinstance(record, dict):
            return "no JSON object"
        return TOO_DEEP if is_too_deep(used_of(record)) else ""

    def _badness_of_others(self, text: bytes, reason: str) -> str:
        """The same of what a parser refuses, and the engine may take: a comma before a bracket."""
        try:
            shown = text.decode()
        except UnicodeDecodeError:
            return "no UTF-8"
        ((read,),) = self.rows("SELECT try_cast(? AS JSON)", [shown])
        return _too_deep(shown) if read is not None and read.lstrip().startswith("{") else reason

    def _count(self) -> int:
        return int(self.rows("SELECT count(*) FROM records")[0][0])


def _too_deep(text: str) -> str:
    return TOO_DEEP if depth_of(text) > DEEPEST else ""
