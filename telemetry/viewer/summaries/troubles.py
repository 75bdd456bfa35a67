"""What went wrong in runs: alerts, failures, and what was lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from telemetry.viewer.logs.records import OURS, Records
from telemetry.viewer.logs.runs import TURN


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of a run.

    Attributes:
        rule: The name of its rule.
        severity: Of the rule.
        raised: How often it was raised.
        still: Whether it was raised when the last attempt ended, or is by now.
        message: What it said last.
    """

    rule: str
    severity: str
    raised: int
    still: bool
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that failed.

    Attributes:
        what: ``"span"``, ``"handler"`` or ``"probe"``.
        name: The name of the span's events, or the id of the handler, or the probe.
        count: How often.
        reason: Why, the last time.
    """

    what: str
    name: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Events that a handler has lost.

    Attributes:
        handler: Its id.
        policy: Why they were, as ``telemetry.handler.overflow`` says it.
        dropped: How many.
    """

    handler: str
    policy: str
    dropped: int


_ALERTS: Final = f"""
SELECT place, coalesce(metadata->>'rule', '?'), coalesce(arg_max(metadata->>'severity', turn), ''),
    count(*) FILTER (event = 'alert.raised') AS raised,
    arg_max(event = 'alert.raised' AND attempt IS NOT DISTINCT FROM last, turn),
    coalesce(arg_max(metadata->>'message', turn) FILTER (event = 'alert.raised'), '')
FROM (
    SELECT told.*, {TURN} AS turn, max(attempt) OVER (PARTITION BY place) AS last
    FROM told WHERE form = {OURS})
WHERE event IN ('alert.raised', 'alert.cleared')
GROUP BY place, metadata->>'rule' HAVING raised > 0 ORDER BY min(turn)"""
_REASON: Final = f"coalesce(arg_max(coalesce(metadata->>'error', metadata->>'reason'), {TURN}), '')"
_FAILURES: Final = f"""
SELECT place, CASE event WHEN 'telemetry.handler.failure' THEN 'handler'
        WHEN 'telemetry.probe.failure' THEN 'probe' ELSE 'span' END AS what,
    coalesce(CASE what WHEN 'handler' THEN metadata->>'handler_id'
        WHEN 'probe' THEN metadata->>'probe' ELSE event[:-11] END, '?'),
    count(*), {_REASON}
FROM told
WHERE form = {OURS} AND (event IN ('telemetry.handler.failure', 'telemetry.probe.failure')
    OR ends_with(event, '.exception'))
GROUP BY ALL ORDER BY min({TURN})"""
_DROPS: Final = f"""
SELECT place, coalesce(metadata->>'handler_id', '?'), coalesce(metadata->>'policy', '?'),
    coalesce(sum(try_cast(measurements->>'dropped' AS HUGEINT)), 0)::HUGEINT
FROM told WHERE form = {OURS} AND event = 'telemetry.handler.overflow'
GROUP BY ALL ORDER BY min({TURN})"""


def alerts(records: Records) -> dict[int, list[Alert]]:
    """The alerts of each run, by its number; `find_runs` has told the runs apart."""
    return _by_run(records, _ALERTS, Alert)


def failures(records: Records) -> dict[int, list[Failure]]:
    """What failed in each run: spans, handlers and probes."""
    return _by_run(records, _FAILURES, Failure)


def drops(records: Records) -> dict[int, list[Drop]]:
    """What each run's handlers have lost."""
    return _by_run(records, _DROPS, Drop)


def _by_run(records: Records, sql: str, kind: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for place, *cells in records.rows(sql):
        found[place].append(kind(*cells))
    return found
