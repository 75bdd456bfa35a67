"""``telemetry query``: SQL over the records of runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click


@click.command()
@click.argument("words", nargs=-1, metavar="SQL [RUN]...", type=click.Path())
@click.option("--csv", "form", flag_value="csv", help="Rows as CSV, with a header.")
@click.option("--json", "form", flag_value="json", help="A list with an object for each row.")
@click.option("--tables", is_flag=True, help="List the views and their columns; no SQL is given.")
def query(words: tuple[str, ...], form: str | None, tables: bool) -> None:
    """Ask runs with SQL.

    RUN is a JSONL file, plain or gzipped, a pattern, or a directory, all of whose logs are meant.
    By default it is the directory runs, or this one where there is none. SQL is DuckDB's. It sees
    two views, and can neither reach other files nor change these:

    \b
    records   source, run, timestamp (UTC), event, step, epoch, run_id, attempt,
              superseded, measurements, metadata (both JSON)
    metrics   run, timestamp, event, step, epoch, and a column for each metric

    Names with dots stand in double quotes: "training.loss". A number in JSON is
    measurements->>'loss', a key of it metadata->>'split'.

    \b
    telemetry demo --out runs --run-id demo
    telemetry query --tables runs/demo
    telemetry query 'select run, max("test.accuracy") from metrics group by run' runs
    telemetry query 'select step, "training.loss" from metrics
        where "training.loss" > 1 order by step' runs/demo --csv > high.csv
    telemetry query "select event, count(*) from records group by all" run.jsonl --json
    """  # noqa: D301 -- click looks for the character itself
    from telemetry.cli.plot.drawing import HOME, reading, told  # noqa: PLC0415 -- it needs NumPy
    from telemetry.cli.query.answers import asked, listed  # noqa: PLC0415 -- as above
    from telemetry.cli.query.rows import PRINTERS  # noqa: PLC0415 -- as above
    from telemetry.viewer.logs.sources import find_logs  # noqa: PLC0415 -- as above

    if not tables and (not words or _is_log(words[0])):
        raise click.UsageError(
            "Which SQL? Write for example: telemetry query 'select count(*) from records' runs"
        )
    sql, paths = ("", words) if tables else (words[0], words[1:])
    if not tables and not sql.strip():
        raise click.UsageError("The SQL is empty.")
    with told():
        sources = find_logs(paths or (HOME if HOME.is_dir() else Path(),))
    with reading(sources, follow=False) as records:
        answer = listed(records) if tables else asked(records, sql)
        PRINTERS[form](answer)


def _is_log(word: str) -> bool:
    """Whether a log, there or missing, stands where the SQL belongs."""
    from telemetry.viewer.logs.sources import SUFFIXES, find_logs  # noqa: PLC0415 -- as above

    if os.path.exists(word):  # noqa: PTH110 -- SQL is too long for a Path
        return True
    if word.split() != [word]:
        return False
    with suppress(OSError):  # also of SQL that is too long
        return word.endswith(SUFFIXES) or bool(find_logs(word))
    return False
