"""What gradient clippers have reported, one clipping after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from telemetry.values import LARGEST, SMALLEST, restore_number
from telemetry.viewer.logs.clipped import IS_DRY_RUN, IS_STOP, STOP
from telemetry.viewer.logs.columns import Column, pointer
from telemetry.viewer.logs.engine import quoted
from telemetry.viewer.logs.parsing import parse_json
from telemetry.viewer.logs.records import OURS, Records

Key: TypeAlias = tuple[str, ...]

BATCH: Final = 10_000
"""Rows that are fetched at once."""
GROUP: Final = "smartclip.clip.group"
START: Final = "smartclip.clip.start"

_WHOSE: Final = """
    coalesce(metadata->>'algo', '') AS algo, coalesce(metadata->>'scope', '') AS scope"""
_SERIES: Final = f"""
SELECT run, {_WHOSE}, {IS_DRY_RUN} AS dry_run, count(*) FROM chosen
WHERE {IS_STOP}
GROUP BY ALL ORDER BY dry_run, count(*) DESC, min(rowid)"""
_OF_SERIES: Final = f"""
FROM chosen WHERE form = {OURS} AND run = ? AND list_contains(?, event)
    AND coalesce(metadata->>'algo', '') = ? AND coalesce(metadata->>'scope', '') = ?"""
_WEIGHED: Final = f"""
SELECT 1 {_OF_SERIES} AND json_type(measurements, '$.weight_norm') IS NOT NULL LIMIT 1"""
_CLIPPINGS: Final = f"""
SELECT event, step, {IS_DRY_RUN}, metadata->'key', measurements {_OF_SERIES}
ORDER BY coalesce(attempt, 0), rowid"""


class Series(NamedTuple):
    """The clippings of one clipper in one run, as far as a log tells clippers apart.

    Attributes:
        run: The run's label.
        algo: The clipper's algorithm.
        scope: What formed a group.
        dry_run: Whether it only watched.
        total: How many clippings there are.
    """

    run: str
    algo: str
    scope: str
    dry_run: bool
    total: int


class RecordedClipping(NamedTuple):
    """One clipping, as it was reported.

    Attributes:
        step: The number of the optimizer step; None if it was not said.
        measured: The measurements of the stop event.
        groups: Those of each group's event; empty where they are not wanted.
    """

    step: float | None
    measured: Mapping[str, Any]
    groups: Mapping[Key, Mapping[str, Any]]


def choose_records(
    records: Records, where: Iterable[tuple[str, str]], is_said: Callable[[Any, str], bool]
) -> None:
    """Make the view ``chosen``: the current records whose metadata say something.

    Args:
        records: The records, with the view that `telemetry.viewer.logs.runs.find_runs` makes.
        where: Keys of the metadata, and what they must be.
        is_said: Tells whether a value is what it must be.
    """
    conditions = ["true"]
    for key, wanted in where:
        said = f"(metadata->{quoted(pointer(key))})::VARCHAR"
        known = records.rows(f"SELECT DISTINCT {said} FROM current WHERE {said} IS NOT NULL")
        meant = [quoted(text) for (text,) in known if is_said(parse_json(text.encode()), wanted)]
        conditions.append(f"{said} IN ({', '.join(meant)})" if meant else "false")
    records.connection.execute(
        f"CREATE OR REPLACE VIEW chosen AS SELECT * FROM current WHERE {' AND '.join(conditions)}"
    )


def find_series(records: Records) -> list[Series]:
    """The clippers that have clipped in all runs; those that only watched come last.

    Args:
        records: The records, with the view that `choose_records` makes.
    """
    return [Series(*row) for row in records.rows(_SERIES)]


def has_weights(records: Records, series: Series) -> bool:
    """Whether the norms of weights were reported, as AGC does."""
    return bool(records.rows(_WEIGHED, [series.run, [GROUP], series.algo, series.scope]))


def read_clippings(records: Records, series: Series, *, groups: bool) -> Iterator[RecordedClipping]:
    """The clippings of a run, in order, without those that a later attempt has made anew.

    Args:
        records: The records, with the view that `choose_records` makes.
        series: Which.
        groups: Whether what was reported of groups is wanted.
    """
    events = [START, GROUP, STOP] if groups else [STOP]
    cursor = records.connection.cursor()
    cursor.execute(_CLIPPINGS, [series.run, events, series.algo, series.scope])
    of_groups: dict[Key, Mapping[str, Any]] = {}
    while rows := cursor.fetchmany(BATCH):
        for event, step, dry_run, key, measurements in rows:
            if event == START:
                of_groups = {}  # what a clipping that was cut short has left
            elif event == GROUP:
                of_groups[_key(key)] = _numbers(measurements)
            else:
                if dry_run == series.dry_run:
                    yield RecordedClipping(step, _numbers(measurements), of_groups)
                of_groups = {}


def read_metric(records: Records, run: str, column: Column) -> Iterator[RecordedClipping]:
    """The values of a metric, as if each were the gradient norm of a clipping.

    Args:
        records: The records, with the view that `choose_records` makes.
        run: The run's label.
        column: The metric.
    """
    cursor = records.connection.cursor()
    cursor.execute(
        f"SELECT * FROM (SELECT step, {column.value} AS value, attempt, rowid FROM chosen "
        f"WHERE run = ? AND ({column.condition})) WHERE value IS NOT NULL "
        "ORDER BY coalesce(attempt, 0), rowid",
        [run],
    )
    while rows := cursor.fetchmany(BATCH):
        for step, value, *_ in rows:
            yield RecordedClipping(step, {"grad_norm": value}, {})


def count_metric(records: Records, run: str, column: Column) -> int:
    """How many values a run has of a metric."""
    sql = f"SELECT count({column.value}) FROM chosen WHERE run = ? AND ({column.condition})"
    return int(records.rows(sql, [run])[0][0])


def _key(text: str | None) -> Key:
    parts = parse_json(text.encode()) if text else []
    return tuple(map(str, parts if isinstance(parts, list) else [parts]))


def _numbers(text: str) -> dict[str, Any]:
    measured = parse_json(text.encode())
    return {key: _number(restore_number(value)) for key, value in measured.items()}


def _number(value: Any) -> Any:
    """A value with room for its integers: those that floats have none for are infinite."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if type(value) is not int or SMALLEST <= value <= LARGEST:
        return value
    return float(str(value))  # of digits: of an integer it could be an error
