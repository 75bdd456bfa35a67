"""The wide frame: one row a record, one column a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from telemetry.extras import import_extra
from telemetry.viewer.frames.details import Kept, as_column, find_details, kept_as, names_of
from telemetry.viewer.frames.origins import find_origins, noted
from telemetry.viewer.frames.points import RECORD
from telemetry.viewer.frames.selection import match_metrics
from telemetry.viewer.frames.shapes import Numbers, Shapes
from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import Paths, find_logs

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CELLS: Final = 250_000_000
"""Metrics times records that a frame may have: two gigabytes of numbers."""


def read_jsonl(paths: Paths, *, metrics: str | Iterable[str] | None = None) -> DataFrame:
    """Read logs into a frame: one row a record, one column a metric.

    The handler ``jsonl``'s records are read, and those of other programs, whose metrics are in an
    object ``metrics``, or a ``metric`` and its ``value``, or numbers beside ``step``. Plain and
    gzipped files are, also while they are written.

    Args:
        paths: A file, a pattern with ``*``, a directory, or several of these.
        metrics: Names (``"training.loss"``), prefixes (``"val."``) or patterns (``"*.loss"``) of
            those to read, with the records that have any of them; all by default. Slashes are
            dots, and ``train.`` is ``training.``.

    Returns:
        A frame with these columns:

        - ``run``: which run a record is of. What several attempts left is one run, in which the
          later attempt is valid from its first step on; each rank is a run of its own.
        - ``timestamp`` (UTC; NaT where there is none), ``event``, ``step`` and ``epoch`` (float64,
          NaN where there is none);
        - the records' other metadata by their keys: numbers as float64, text as categories (as
          objects where there is much of it), nested values as their JSON text, booleans as
          objects, beside numbers as 0 and 1, and whatever is beside text as text.
          ``telemetry_span_context`` and stack traces are left out;
        - the metrics, float64, NaN where a record has none, under the names that
          `telemetry.metrics` reports; booleans are 0 and 1. ``attrs["metrics"]`` lists them,
          ``attrs["sources"]`` the files, and ``attrs["origins"]`` from where the time and the
          steps of each run are counted, which is of all its records.

        Where no record has a step, an epoch or a time, the column ``record`` has its number in its
        run, from 1.

    Raises:
        FileNotFoundError: A file is missing, or a directory or pattern has no log.
        OSError: A file cannot be read.
        TypeError: A path or a metric is none.
        ValueError: No metric is called so (the nearest are offered), none is named, or there are
            too many for one frame.
        MissingExtraError: DuckDB or pandas is not installed.

    Warns:
        BadLinesWarning: Lines are no records; they are left out.

    Example:
        >>> import json, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = pathlib.Path(folder, "metrics.jsonl")
        ...     record = {"event": "training.step", "measurements": {"loss": 2.5},
        ...               "metadata": {"step": 1}}
        ...     _ = log.write_text(json.dumps(record))
        ...     read_jsonl(log)[["run", "step", "training.loss"]]
               run  step  training.loss
        0  metrics   1.0            2.5
    """
    import_extra("pandas", extra="viewer", feature="telemetry.viewer")
    sources = find_logs(paths)
    with Records(sources) as records:
        columns = list(find_columns(records).values())
        if metrics is not None:
            names = match_metrics(metrics, [column.name for column in columns])
            columns = [column for name in names for column in columns if column.name == name]
        frame = frame_of(records, columns, only=metrics is not None)
    frame.attrs["sources"] = [str(source.path) for source in sources]
    return frame


def frame_of(records: Records, columns: Sequence[Column], *, only: bool = False) -> DataFrame:
    """The frame of some records.

    Args:
        records: The records.
        columns: The metrics.
        only: Whether only records that have one of these are wanted.

    Raises:
        ValueError: It would be too large.
    """
    import pandas as pd  # noqa: PLC0415 -- of the extra

    runs = find_runs(records)
    wanted = " OR ".join(column.condition for column in columns) if only else "true"
    _check_size(records, columns, wanted)
    keys = find_details(records)
    origins = find_origins(records.connection)
    placed = any(each.steps or each.epochs or each.began is not None for each in origins.values())
    _parse(records, columns, keys, wanted, numbered=not placed)
    if only:
        _leave_out_others(records, len(columns))
    numbers = _with_values(records, len(columns))
    metrics = [columns[number].name for number in numbers]
    ours = ["event", *(f"detail{number}" for number in range(len(keys)))]
    kept = dict(zip(["event", *names_of(keys, metrics)], kept_as(records, ours), strict=True))
    kept = {name: how for name, how in kept.items() if name == "event" or how.texts != []}
    values = {columns[number].name: f"coalesce(metric{number}, 'NaN')" for number in numbers}
    table = _fetch(records, kept, values, numbered=not placed)
    table["run"] = pd.Categorical.from_codes(
        table["run"], categories=pd.Index(runs, dtype="object")
    )
    table["timestamp"] = pd.Series(table["timestamp"]).dt.tz_localize("UTC")
    table |= {name: as_column(table[name], how.texts) for name, how in kept.items()}
    frame = pd.DataFrame(table, copy=False)
    frame.attrs["metrics"] = metrics
    frame.attrs["origins"] = noted(origins)
    return frame


def _check_size(records: Records, columns: Sequence[Column], wanted: str) -> None:
    ((rows,),) = records.rows(f"SELECT count(*) FROM current WHERE {wanted}")
    if rows * len(columns) > MOST_CELLS:
        raise ValueError(
            f"{len(columns):,} metrics of {rows:,} records are too many for one frame, which has "
            f"at most {MOST_CELLS:,} values. Name those you want: "
            f'read_jsonl(..., metrics=["{columns[0].name}"]).'
        )


def _parse(
    records: Records, columns: Sequence[Column], keys: Sequence[str], wanted: str, *, numbered: bool
) -> None:
    """Make the table ``parsed``: numbers, and texts of JSON, in the order of the frame's rows."""
    numbers = Numbers(columns)
    details = Shapes("details", "metadata", keys, "JSON")
    selected = [
        *(f"{details[key]} AS detail{number}" for number, key in enumerate(keys)),
        *(f"{numbers.value(column)} AS metric{n}" for n, column in enumerate(columns)),
    ]
    number = ", row_number() OVER (PARTITION BY place ORDER BY rowid) AS record"
    source = f"(SELECT *{number} FROM current)" if numbered else "current"
    placed = ["place", "timestamp", "step", "epoch", *(["record"] if numbered else [])]
    parsed = ["*", *numbers.parsed(), *details.parsed()]
    records.rows(f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        SELECT {", ".join(placed)}, to_json(event) AS event, {", ".join(selected)}
        FROM (SELECT {", ".join(parsed)} FROM {source} WHERE {wanted})
        {_order(records)}""")


def _leave_out_others(records: Records, count: int) -> None:
    """Leave out records that could have one of the metrics, and have none."""
    values = ", ".join(f"metric{number}" for number in range(count))
    records.rows(f"DELETE FROM parsed WHERE coalesce({values}) IS NULL")


def _order(records: Records) -> str:
    """How the rows are put in order: those of a run together, where files share it."""
    shared = records.rows(
        "SELECT place FROM current GROUP BY place HAVING count(DISTINCT source) > 1 LIMIT 1"
    )
    if shared:
        return "ORDER BY place, coalesce(attempt, 0), rowid"
    parts = "SELECT DISTINCT source, run_id, attempt, rank FROM records LIMIT 2"
    ((several,),) = records.rows(f"SELECT count(*) > 1 FROM ({parts})")
    return "ORDER BY rowid" if several else ""  # joining the parts may have mixed them


def _with_values(records: Records, count: int) -> list[int]:
    """Which of the metrics have a value at all: text can be a number, and mostly is none."""
    if not count:
        return []
    counts = ", ".join(f"count(metric{number})" for number in range(count))
    (found,) = records.rows(f"SELECT {counts} FROM parsed")
    return [number for number, values in enumerate(found) if values]


def _fetch(
    records: Records, kept: Mapping[str, Kept], values: Mapping[str, str], *, numbered: bool
) -> dict[str, Any]:
    """The columns by the names that the frame gives them: no two have one."""
    expressions = {
        "run": "place",
        "timestamp": "timestamp",
        "event": kept["event"].expression,
        "step": "coalesce(step, 'NaN')",
        "epoch": "coalesce(epoch, 'NaN')",
        **({RECORD: "record::DOUBLE"} if numbered else {}),
        **{name: how.expression for name, how in kept.items()},
        **values,
    }
    selected = ", ".join(f"{each} AS c{number}" for number, each in enumerate(expressions.values()))
    fetched = records.connection.execute(f"SELECT {selected} FROM parsed").fetchnumpy()
    return dict(zip(expressions, fetched.values(), strict=True))
