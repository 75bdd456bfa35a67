"""The records of log files, in a table of DuckDB's.

Lines are read, parsed and kept by the engine, which spills to disk what does not fit in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self

import orjson

from telemetry.values import DEEPEST, END_OF_TIME, is_too_deep
from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.content import Content, ends_in_newline
from telemetry.viewer.logs.depth import depth_of
from telemetry.viewer.logs.engine import (
    LONGEST_LINE,
    can_be_named,
    connect,
    interruptible,
    lines_of,
    piped,
    take_rejected,
)
from telemetry.viewer.logs.foreign import TIMES, TOO_DEEP, used_of
from telemetry.viewer.logs.lines import GZIPPED, MAGIC, read_lines
from telemetry.viewer.logs.sources import Source

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
QUIET: Final = 10.0
"""Seconds after which a file that was not written to is taken to be finished."""
BELOW: Final = 5
"""Calls between the warning and who asked for the records."""

_RECORD: Final = (
    '{"timestamp": "VARCHAR", "event": "VARCHAR", "measurements": "JSON", "metadata": "JSON"}'
)
_PLACE: Final = '{"step": "DOUBLE", "epoch": "DOUBLE", "run_id": "VARCHAR", "attempt": "INTEGER"}'
_TABLE: Final = """
CREATE TABLE records (
    source USMALLINT, form UTINYINT, timestamp TIMESTAMP, event VARCHAR, step DOUBLE, epoch DOUBLE,
    run_id VARCHAR, attempt INTEGER, measurements JSON, metadata JSON)"""
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
    CASE WHEN suffix(one.timestamp, 'Z') THEN try_cast(one.timestamp AS TIMESTAMP)
        ELSE try_cast(one.timestamp AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END, one.event,
    place.step, place.epoch, place.run_id, place.attempt,
    one.measurements, CASE WHEN {_IS_OURS} THEN one.metadata ELSE try_cast(text AS JSON) END
FROM (
    SELECT text, one, from_json(one.metadata, '{_PLACE}') AS place
    FROM (SELECT text, TRY(from_json(text, '{_RECORD}')) AS one FROM {_LINES})
)"""
_THEIR_TIME: Final = f"coalesce({', '.join(f'metadata->>{key!r}' for key in TIMES)})"
_TELL: Final = f"""
UPDATE records SET
    form = CASE WHEN NOT starts_with(ltrim(metadata::VARCHAR), '{{') THEN NULL
        WHEN json_type(metadata, '$.metrics') = 'OBJECT' THEN {NESTED}
        WHEN json_type(metadata, '$.metric') = 'VARCHAR' THEN {SINGLE}
        ELSE {FLAT} END,
    timestamp = coalesce(try_cast({_THEIR_TIME} AS TIMESTAMPTZ) AT TIME ZONE 'UTC',
        make_timestamp(try_cast(try_cast({_THEIR_TIME} AS DOUBLE) * 1e6 AS BIGINT))),
    event = coalesce(event, metadata->>'_type', ''),
    step = from_json(metadata, '{_PLACE}').step,
    epoch = from_json(metadata, '{_PLACE}').epoch,
    run_id = from_json(metadata, '{_PLACE}').run_id,
    attempt = from_json(metadata, '{_PLACE}').attempt,
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
    """

    def __init__(self, sources: Sequence[Source], *, follow: bool = False) -> None:
        self.sources = tuple(sources)
        self.connection = connect()
        self.connection.execute(_TABLE)
        self.bad_lines = [0] * len(self.sources)
        self.restarts = 0
        self._follow = follow
        self._contents = [Content(source.path) for source in self.sources]
        for number in range(len(self.sources)):
            self._load(number)

    def rows(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        return interruptible(
            self.connection, lambda: self.connection.execute(sql, parameters).fetchall()
        )

    def extend(self, sources: Sequence[Source]) -> None:
        """Read files that were not there before, and take new labels of those that were.

        Args:
            sources: The new files, and any that are known already.
        """
        labels = {source.path: source.label for source in sources}
        known = [
            source._replace(label=labels.pop(source.path, source.label)) for source in self.sources
        ]
        self.sources = (*known, *(Source(path, label) for path, label in labels.items()))
        for number in range(len(known), len(self.sources)):
            self._contents.append(Content(self.sources[number].path))
            self.bad_lines.append(0)
            self._load(number)

    def refresh(self) -> int:
        """Read what was written since.

        Returns:
            How many records there are more. A file that was cut, or is another one by now, is read
            anew; of one that was deleted stays what was read.
        """
        before = self._count()
        for number, content in enumerate(self._contents):
            if not content.path.exists():
                continue
            if content.has_begun_anew():
                self.restarts += 1
                self._contents[number] = Content(content.path)
                self.rows("DELETE FROM records WHERE source = ?", [number])
                self._load(number)
            else:
                self._insert_lines(number, content.whole_lines())
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
        """Read a file from its beginning."""
        content = self._contents[number]
        self.bad_lines[number] = 0
        if self._is_finished(content):
            self._insert(number, lines_of(content.path))
            content.skip(content.path.stat().st_size)
        else:
            self._insert_lines(number, content.whole_lines())
            if not self._follow:
                self._insert_lines(number, [content.rest()])
        if content.is_damaged:
            self.bad_lines[number] += 1
        if self.bad_lines[number]:
            self._warn(content)

    def _is_finished(self, content: Content) -> bool:
        """Whether the engine can read the file itself, up to whatever is its end."""
        if not (content.is_plain and can_be_named(content.path)):
            return False
        return not self._follow or (
            time.time() - content.path.stat().st_mtime > QUIET and ends_in_newline(content.path)
        )

    def _insert_lines(self, number: int, pieces: Iterable[bytes]) -> None:
        first = next(iter(pieces := filter(None, pieces)), None)
        if first is not None:
            with piped(chain([first], pieces)) as path:
                self._insert(number, lines_of(path))

    def _insert(self, number: int, lines: str) -> None:
        self.rows(_INSERT.replace(_LINES, lines), {"source": number})
        forms = {form for (form,) in self.rows("SELECT DISTINCT form FROM records")}
        if SUSPECT in forms:
            self._leave_out_deep()
        if forms & {UNTOLD, SUSPECT}:
            self.rows(_TELL)
        for statement in _IN_RANGE:
            self.rows(statement)
        ((bad,),) = self.rows("SELECT count(*) FROM records WHERE form IS NULL")
        if bad or BLANK in forms:
            self.rows(f"DELETE FROM records WHERE form IS NULL OR form = {BLANK}")
        self.bad_lines[number] += bad + take_rejected(self.connection)

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
            record = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return self._badness_of_others(text, str(error))
        if not isinstance(record, dict):
            return "no JSON object"
        return TOO_DEEP if is_too_deep(used_of(record)) else ""

    def _badness_of_others(self, text: bytes, reason: str) -> str:
        """The same of what one parser refuses, and the engine may take: a bare NaN."""
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
