"""The spans of a run: found in the records, and those that a stretch of time shows."""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from telemetry.viewer.page.lanes import lanes_of
from telemetry.viewer.page.watched import Snapshot

MOST_SPANS: Final = 1500
"""Spans that are shown at once: those that failed or are open, and the longest."""
DEEPEST: Final = 50
"""Spans above a span that are looked for."""
LABELS: Final = ("stage", "regularizer_name", "operation", "workflow", "model_id", "algo")
"""Keys of the metadata that say what a span was of."""

_TABLE: Final = """
CREATE OR REPLACE TABLE spans (
    run VARCHAR, attempt INTEGER, name VARCHAR, ending VARCHAR, span VARCHAR, parent VARCHAR,
    first DOUBLE, last DOUBLE, step DOUBLE, label VARCHAR, reason VARCHAR)"""
_KEYS: Final = ", ".join(f'"{key}": "VARCHAR"' for key in ("reason", *LABELS))
# The engine computes an expression of a subquery again wherever it is used, and the same one in one
# SELECT only once.
_TOLD: Final = (
    'from_json(metadata, \'{"telemetry_span_context": {"span_id": "VARCHAR", '
    f'"parent_id": "VARCHAR"}}, {_KEYS}}}\')'
)
_DURATION: Final = 'from_json(measurements, \'{"duration": "DOUBLE"}\').duration'
_INSERT: Final = f"""
INSERT INTO spans
SELECT run, coalesce(attempt, 0), regexp_replace(event, '\\.[^.]*$', ''),
    regexp_extract(event, '[^.]*$'),
    {_TOLD}.telemetry_span_context.span_id, {_TOLD}.telemetry_span_context.parent_id,
    epoch_us(timestamp) / 1e6 - coalesce({_DURATION}, 0) / 1e9, epoch_us(timestamp) / 1e6, step,
    coalesce({", ".join(f"{_TOLD}.{key}" for key in LABELS)}), {_TOLD}.reason
FROM current
WHERE rowid > ? AND rowid <= ? AND timestamp IS NOT NULL AND (ends_with(event, '.start')
    OR (ends_with(event, '.stop') OR ends_with(event, '.exception')) AND isfinite({_DURATION}))"""
_FORGET_ENDED: Final = """
DELETE FROM spans WHERE ending IN ('start', 'lost') AND (span IS NULL OR EXISTS (
    SELECT 1 FROM spans AS ended WHERE ended.run = spans.run AND ended.span = spans.span
        AND ended.ending NOT IN ('start', 'lost')))"""
_LOSE: Final = """
UPDATE spans SET ending = 'lost', last = greatest(attempts.last, first) FROM (
    SELECT run, coalesce(attempt, 0) AS attempt, epoch_us(max(timestamp)) / 1e6 AS last,
        max(coalesce(attempt, 0)) OVER (PARTITION BY run) AS latest
    FROM told GROUP BY run, coalesce(attempt, 0)
) AS attempts
WHERE spans.ending = 'start' AND spans.run = attempts.run AND spans.attempt = attempts.attempt
    AND attempts.attempt < attempts.latest"""
_COLUMNS: Final = "name, ending, span, parent, first, last, step, label, reason"
_WITHIN: Final = """
FROM spans WHERE run = ? AND first <= ? AND (last >= ? OR ending = 'start')"""
_SHOWN: Final = f"""
SELECT {_COLUMNS} {_WITHIN}
ORDER BY ending = 'stop', last - first DESC, first LIMIT {MOST_SPANS}"""
_ABOVE: Final = f"""
SELECT {_COLUMNS} FROM spans WHERE run = ? AND list_contains(?, span)"""


class Span(NamedTuple):
    """A span.

    Attributes:
        name: Its event's name without the last part.
        ending: ``"stop"``, ``"exception"``, ``"start"`` for one that has no end yet, or ``"lost"``
            for one that never ended, because its attempt at the run did before.
        span: Its id.
        parent: The id of the span that it was in.
        first: When it began, in seconds since 1970.
        last: When it ended; for an open one, when it began; for a lost one, the time of the last
            record of its attempt.
        step: In which step.
        label: What it was of.
        reason: Why it failed.
    """

    name: str
    ending: str
    span: str | None
    parent: str | None
    first: float
    last: float
    step: float | None
    label: str | None
    reason: str | None


class Spans:
    """The spans of all runs, kept in a table beside the records."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = -1
        self._last = -1

    def told(
        self, snapshot: Snapshot, *, run: int, origin: float, start: float, end: float
    ) -> dict[str, Any]:
        """The spans of a run in some stretch of time.

        Args:
            snapshot: What was read of the logs.
            run: The number of the run.
            origin: When the run began, in seconds since 1970.
            start: From when on, in seconds since then; -infinity for the beginning.
            end: Up to when.

        Returns:
            ``spans``, with times in seconds since the run began and the number of their ``lane``;
            ``count``, how many there are in the stretch, drawn or not; ``end``, the time of the
            last of all.
        """
        self._read(snapshot)
        name = snapshot.runs[run]
        cursor = snapshot.records.connection.cursor()
        stretch = [name, end + origin, start + origin]
        ((count,),) = cursor.execute(f"SELECT count(*) {_WITHIN}", stretch).fetchall()
        found = [Span(*row) for row in cursor.execute(_SHOWN, stretch).fetchall()]
        ((latest,),) = cursor.execute(
            "SELECT max(epoch_us(timestamp)) / 1e6 FROM current WHERE run = ?", [name]
        ).fetchall()
        shown = self._with_parents(cursor, name, found)
        now = origin if latest is None else latest
        ended = [each._replace(last=now) if each.ending == "start" else each for each in shown]
        told = [
            {
                **each._asdict(),
                "first": each.first - origin,
                "last": each.last - origin,
                "lane": lane,
            }
            for each, lane in lanes_of(ended)
        ]
        return {"spans": told, "count": count, "end": now - origin}

    def _read(self, snapshot: Snapshot) -> None:
        """Find the spans that have come since."""
        with self._lock:
            cursor = snapshot.records.connection.cursor()
            is_anew = self._generation != snapshot.generation
            if is_anew:
                cursor.execute(_TABLE)
                self._generation, self._last = snapshot.generation, -1
            if self._last < snapshot.last:
                cursor.execute(_INSERT, [self._last, snapshot.last])
                cursor.execute(_FORGET_ENDED)
                if is_anew:  # as it is where another attempt has begun
                    cursor.execute(_LOSE)
                self._last = snapshot.last

    def _with_parents(self, cursor: Any, run: str, found: list[Span]) -> list[Span]:
        """Spans with those that they are in, which may be too many to be among them."""
        shown = {each.span or str(number): each for number, each in enumerate(found)}
        for _ in range(DEEPEST):
            wanted = {each.parent for each in shown.values() if each.parent} - shown.keys()
            rows = cursor.execute(_ABOVE, [run, sorted(wanted)]).fetchall() if wanted else []
            if not rows:
                break
            shown.update({row[2]: Span(*row) for row in rows})
        return list(shown.values())
