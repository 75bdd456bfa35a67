"""How runs went: from when to when, and how they ended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, Literal, TypeAlias

from telemetry.viewer.logs.records import OURS, Records
from telemetry.viewer.logs.runs import TURN

Status: TypeAlias = Literal["finished", "failed", "no end", "unknown"]

_RUN: Final = "workflow.run"
_SECOND: Final = 1e9
_SPANS: Final = f"""
SELECT place, {TURN}, attempt, event, timestamp,
    coalesce(metadata->>'$.telemetry_span_context.span_id', rowid::VARCHAR),
    metadata->>'$.telemetry_span_context.parent_id',
    metadata->>'$.telemetry_span_context.trace_id',
    try_cast(measurements->>'duration' AS DOUBLE),
    coalesce(metadata->>'error', metadata->>'reason', '')
FROM told
WHERE form = {OURS} AND event IN ('{_RUN}.start', '{_RUN}.stop', '{_RUN}.exception')
ORDER BY 2"""


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a run.

    Attributes:
        status: ``"finished"``; ``"failed"``; ``"no end"`` of one that has begun and is still
            running, or has died; ``"unknown"`` of one that has no ``workflow.run`` events.
        error: What it failed with, "" if it has not.
        attempt: The number of its last attempt, 1 where none is told.
        began: The time of its first record, None where records have no time.
        ended: Of its last.
        duration_s: Seconds that its ``workflow.run`` spans took, an open one as far as the records
            of its attempt go; without such spans, from the first record to the last. None where
            that is unknown.
    """

    status: Status
    error: str
    attempt: int
    began: datetime | None
    ended: datetime | None
    duration_s: float | None


@dataclass(slots=True)
class _Span:
    turn: int
    attempt: int | None
    began: datetime | None
    parent: str | None
    ended: bool = False
    failed: bool = False
    error: str = ""
    seconds: float | None = None


def courses(records: Records) -> dict[int, Course]:
    """The course of each run, by its number; `find_runs` has told the runs apart."""
    spans = _spans(records)
    lasts = _lasts(records, spans)
    rows = records.rows(
        "SELECT place, max(attempt), min(timestamp), max(timestamp) FROM told GROUP BY place"
    )
    return {
        place: _course(spans.get(place, []), lasts, attempt or 1, _utc(began), _utc(ended))
        for place, attempt, began, ended in rows
    }


def _spans(records: Records) -> dict[int, list[_Span]]:
    """The runs' own spans, without those of workflows within them."""
    spans: dict[int, dict[str, _Span]] = defaultdict(dict)
    outer: dict[tuple[int, int | None, str], _Span] = {}
    inner: set[int] = set()
    for (
        place,
        turn,
        attempt,
        event,
        moment,
        span_id,
        parent,
        trace,
        duration,
        error,
    ) in records.rows(_SPANS):
        span = spans[place].setdefault(span_id, _Span(turn, attempt, _utc(moment), parent))
        if trace is not None and span.turn == turn:
            above = outer.get((place, attempt, trace))
            if above is None or above.ended:
                outer[place, attempt, trace] = span
            else:  # even where there are spans of others in between
                inner.add(turn)
        if event != f"{_RUN}.start":
            span.ended = True
            span.failed = event == f"{_RUN}.exception"
            span.error = error if span.failed else ""
            is_known = duration is not None and isfinite(duration) and duration >= 0
            span.seconds = duration / _SECOND if is_known else None
    return {
        place: [
            span for span in of_run.values() if span.turn not in inner and span.parent not in of_run
        ]
        for place, of_run in spans.items()
    }


def _lasts(records: Records, spans: dict[int, list[_Span]]) -> dict[int, datetime | None]:
    """When the last record before the next span was, of spans that do not say how long they took.

    A record of another attempt is none of them: a run that was killed waits to be resumed.
    """
    if all(span.seconds is not None for of_run in spans.values() for span in of_run):
        return {}
    begun = ", ".join(
        f"({place}, {span.turn}::HUGEINT, {'NULL' if span.attempt is None else span.attempt}::INT)"
        for place, of_run in spans.items()
        for span in of_run
    )
    rows = records.rows(f"""
        SELECT begun.turn, max(timestamp)
        FROM (SELECT place, {TURN} AS turn, attempt, timestamp FROM told) AS told
        ASOF JOIN (VALUES {begun}) AS begun(place, turn, attempt)
        ON told.place = begun.place AND told.turn >= begun.turn
        WHERE told.attempt IS NOT DISTINCT FROM begun.attempt GROUP BY begun.turn""")
    return {turn: _utc(last) for turn, last in rows}


def _course(
    spans: list[_Span],
    lasts: dict[int, datetime | None],
    attempt: int,
    began: datetime | None,
    ended: datetime | None,
) -> Course:
    if not spans:
        return Course("unknown", "", attempt, began, ended, _between(began, ended))
    last = spans[-1]
    status: Status = "failed" if last.failed else "finished" if last.ended else "no end"
    seconds = [
        _between(span.began, lasts.get(span.turn)) if span.seconds is None else span.seconds
        for span in spans
    ]
    known = [each for each in seconds if each is not None]
    return Course(status, last.error, attempt, began, ended, sum(known) if known else None)


def _between(began: datetime | None, ended: datetime | None) -> float | None:
    return None if began is None or ended is None else (ended - began).total_seconds()


def _utc(moment: Any) -> datetime | None:
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else None
