"""Where the metrics of runs ended, and how good they were at best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from telemetry.viewer.frames.shapes import Numbers
from telemetry.viewer.logs.columns import Column
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import TURN
from telemetry.viewer.summaries.goals import Goal, goal_of

AT_ONCE: Final = 50
"""Metrics that are read in one pass over the records."""


@dataclass(frozen=True, slots=True)
class MetricEnd:
    """A metric of a run.

    Attributes:
        name: Its reported name.
        values: How many there are.
        last: The last of them, which can be NaN or infinite.
        last_step: The step of it, None where it has none.
        best: The best of the finite ones; None where there are none, or the name does not tell.
        best_step: The step of the first that is as good, None where it has none.
        goal: Which values are the best, None where the name does not tell (see `goal_of`).
    """

    name: str
    values: int
    last: float
    last_step: float | None
    best: float | None
    best_step: float | None
    goal: Goal | None


def metric_ends(records: Records, columns: Sequence[Column]) -> Iterator[tuple[int, MetricEnd]]:
    """The ends of some metrics of all runs, with the number of the run.

    Args:
        records: The records; `find_runs` has told the runs apart.
        columns: The metrics.
    """
    for start in range(0, len(columns), AT_ONCE):
        yield from _ends_of(records, columns[start : start + AT_ONCE])


def _ends_of(records: Records, columns: Sequence[Column]) -> Iterator[tuple[int, MetricEnd]]:
    """The ends of metrics, whose values are worked out once for all that is asked of them."""
    numbers = Numbers(columns)
    values = ", ".join(f"{numbers.value(column)} AS v{n}" for n, column in enumerate(columns))
    parsed = ", ".join(["*", *numbers.parsed()])
    goals = [goal_of(column.name) for column in columns]
    asked = ", ".join(_asked(f"v{number}", goal) for number, goal in enumerate(goals))
    rows = records.rows(f"""
        WITH points AS MATERIALIZED (
            SELECT place, {TURN} AS turn, step, {values} FROM (SELECT {parsed} FROM current))
        SELECT place, {asked} FROM points GROUP BY place ORDER BY place""")
    for place, *cells in rows:
        for number, (column, goal) in enumerate(zip(columns, goals, strict=True)):
            count, last, last_step, best, step = cells[5 * number : 5 * number + 5]
            if count:
                yield place, MetricEnd(column.name, count, last, last_step, best, step, goal)


def _asked(value: str, goal: Goal | None) -> str:
    last = f"arg_max({value}, turn), arg_max_null(step, turn) FILTER ({value} IS NOT NULL)"
    if goal is None:
        return f"count({value}), {last}, NULL, NULL"
    end, rank = ("min", value) if goal == "lowest" else ("max", f"-{value}")
    finite = f"FILTER (isfinite({value}))"
    # The step is in a structure because a NULL by itself would be passed over.
    first = f"arg_min({{'step': step}}, ({rank}, turn)) {finite}"
    return f"count({value}), {last}, {end}({value}) {finite}, ({first}).step"
