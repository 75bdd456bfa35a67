"""What SQL sees of runs: the views ``records`` and ``metrics``, and nothing beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.engine import identifier, quoted
from telemetry.viewer.logs.records import OURS, Records
from telemetry.viewer.logs.runs import find_runs

SCHEMA: Final = "runs"
VIEWS: Final = ("records", "metrics")


def make_views(records: Records) -> None:
    """Make two views, and lock what else SQL could reach: files, the network, the settings.

    - ``records``: all records, with ``source`` (the file), ``run``, ``timestamp`` (UTC),
      ``event``, ``step``, ``epoch``, ``run_id``, ``attempt``, ``superseded`` (whether a later
      attempt is valid in its place), ``measurements`` and ``metadata`` (JSON).
    - ``metrics``: ``run``, ``timestamp``, ``event``, ``step``, ``epoch`` and a column for each
      reported metric, of the records that are not superseded.

    Nothing is worked out before it is asked for.

    Args:
        records: The records; whoever asks them for SQL afterwards has these views.
    """
    find_runs(records)
    files = ", ".join(quoted(str(source.path)) for source in records.sources)
    metrics = [
        f"CASE WHEN {column.condition} THEN {column.value} END AS {identifier(column.name)}"
        for column in with_values(records, list(find_columns(records).values()))
    ]
    placed = "run, timestamp, event, step, epoch"
    records.rows(f"""
        CREATE SCHEMA {SCHEMA};
        CREATE VIEW {SCHEMA}.records AS
        SELECT ([{files}]::VARCHAR[])[source + 1] AS source, {placed}, run_id, attempt,
            superseded, measurements, metadata
        FROM told;
        CREATE VIEW {SCHEMA}.metrics AS SELECT {", ".join([placed, *metrics])} FROM current;
        SET search_path = '{SCHEMA}';
        SET enable_external_access = false;
        SET lock_configuration = true""")


def columns_of(records: Records, view: str) -> list[tuple[str, str]]:
    """The names and types of a view's columns."""
    return [(name, kind) for name, kind, *_ in records.rows(f"DESCRIBE {SCHEMA}.{view}")]


def with_values(records: Records, columns: Sequence[Column]) -> list[Column]:
    """Those that have a number: what other programs wrote may be text that stands for none."""
    return [
        column
        for column in columns
        if all(place.forms == (OURS,) for place in column.places)
        or records.rows(
            f"SELECT 1 FROM current WHERE CASE WHEN {column.condition} THEN {column.value} END "
            "IS NOT NULL LIMIT 1"
        )
    ]
