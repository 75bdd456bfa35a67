"""What SQL sees of runs: the views ``records`` and ``metrics``, and nothing beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from telemetry.viewer.logs.columns import find_columns, with_values
from telemetry.viewer.logs.engine import identifier, quoted
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs

SCHEMA: Final = "runs"
VIEWS: Final = ("records", "metrics")
PLACED: Final = ("run", "timestamp", "event", "step", "epoch")
"""The columns of both views."""


def make_views(records: Records) -> dict[str, str]:
    """Make two views, and lock what else SQL could reach: files, the network, the settings.

    - ``records``: all records, with ``source`` (the file), ``run``, ``timestamp`` (UTC),
      ``event``, ``step``, ``epoch``, ``run_id``, ``attempt``, ``superseded`` (whether a later
      attempt is valid in its place), ``measurements`` and ``metadata`` (JSON).
    - ``metrics``: ``run``, ``timestamp``, ``event``, ``step``, ``epoch`` and a column for each
      reported metric, of the records that are not superseded.

    Nothing is worked out before it is asked for.

    Args:
        records: The records; whoever asks them for SQL afterwards has these views.

    Returns:
        The metric of each column of ``metrics`` that is one.
    """
    find_runs(records)
    files = ", ".join(quoted(str(source.path)) for source in records.sources)
    columns = with_values(records, find_columns(records).values())
    names = names_in_sql([column.name for column in columns])
    metrics = [
        f"CASE WHEN {column.condition} THEN {column.value} END AS {identifier(name)}"
        for name, column in zip(names, columns, strict=True)
    ]
    placed = ", ".join(PLACED)
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
    return {name: column.name for name, column in zip(names, columns, strict=True)}


def names_in_sql(metrics: Sequence[str]) -> list[str]:
    """What the columns of metrics are called, so that no name stands for two of them.

    SQL tells no upper from lower case. Metrics that differ in that alone, or are called as another
    column is, have a number behind their names, all of them: a name that could mean several means
    none.

    Example:
        >>> names_in_sql(["loss", "Loss", "loss_1", "step", "lr"])
        ['loss_2', 'Loss_3', 'loss_1', 'step_1', 'lr']
    """
    counts = Counter([*PLACED, *(name.casefold() for name in metrics)])
    taken = set(counts)
    return [_free(name, taken) if counts[name.casefold()] > 1 else name for name in metrics]


def _free(name: str, taken: set[str]) -> str:
    number = 1
    while (free := f"{name}_{number}").casefold() in taken:
        number += 1
    taken.add(free.casefold())
    return free


def columns_of(records: Records, view: str) -> list[tuple[str, str]]:
    """The names and types of a view's columns."""
    return [(name, kind) for name, kind, *_ in records.rows(f"DESCRIBE {SCHEMA}.{view}")]
