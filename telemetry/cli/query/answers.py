"""What the engine answers to SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from telemetry.cli.output.printable import printable
from telemetry.cli.plot.drawing import told
from telemetry.extras import import_extra
from telemetry.viewer.frames.views import VIEWS, columns_of, make_views
from telemetry.viewer.logs.engine import interruptible
from telemetry.viewer.logs.records import Records

if TYPE_CHECKING:
    import duckdb

AT_ONCE: Final = 1000
"""Rows that are fetched at once; the engine works out no more of them before they are."""


class Answer(NamedTuple):
    """What is printed.

    Attributes:
        names: Of the columns; each is another.
        kinds: Their types, as the engine names them.
        rows: Their values.
    """

    names: list[str]
    kinds: list[str]
    rows: Iterator[Sequence[Any]]


def asked(records: Records, sql: str) -> Answer:
    """What some SQL gives; of several statements, the last.

    Raises:
        click.ClickException: It cannot be answered.
    """
    with told():
        make_views(records)
        metrics = [name for name, _ in columns_of(records, "metrics")]  # SQL may drop the view
    connection = records.connection
    with _failing(metrics, sql):
        interruptible(connection, lambda: connection.execute(sql))
    described = connection.description
    if described is None:
        raise click.ClickException(f"The SQL asks nothing: {printable(sql)}")
    names = _different([name for name, *_ in described])
    kinds = [str(kind) for _, kind, *_ in described]
    return Answer(names, kinds, _rows(connection, metrics, sql))


def listed(records: Records) -> Answer:
    """The views and their columns, and of which metric one is that has another name."""
    with told():
        metrics = make_views(records)
        rows = [
            (view, name, kind, metrics.get(name, name) if view == "metrics" else name)
            for view in VIEWS
            for name, kind in columns_of(records, view)
        ]
    told_apart = ((*row, "" if meant == row[1] else meant) for *row, meant in rows)
    return Answer(["view", "column", "type", "metric"], ["VARCHAR"] * 4, told_apart)


def _rows(
    connection: duckdb.DuckDBPyConnection, metrics: Sequence[str], sql: str
) -> Iterator[Sequence[Any]]:
    while True:
        with _failing(metrics, sql):
            rows = interruptible(connection, lambda: connection.fetchmany(AT_ONCE))
        if not rows:
            return
        yield from rows


@contextmanager
def _failing(metrics: Sequence[str], sql: str) -> Iterator[None]:
    """Tell errors of SQL as a command does."""
    engine = import_extra("duckdb", extra="viewer", feature="telemetry query")
    try:
        yield
    except engine.Error as error:
        raise click.ClickException(_words(error, metrics, sql)) from error


def _words(error: duckdb.Error, metrics: Sequence[str], sql: str) -> str:
    said = "\n".join(map(printable, str(error).strip().split("\n")))
    bare = [printable(name) for name in metrics if "." in name and _is_bare(name, sql)]
    if not bare:
        return said
    which = ", ".join(f'"{name}"' for name in bare[:3])
    return f"{said}\nNames with dots stand in double quotes: {which}."


def _is_bare(name: str, sql: str) -> bool:
    return re.search(rf'(?<!["\w.]){re.escape(name)}(?!["\w])', sql, re.IGNORECASE) is not None


def _different(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that others have as well.

    Example:
        >>> _different(["a", "a", "b"])
        ['a', 'a_2', 'b']
    """
    different: list[str] = []
    for name in names:
        number, free = 1, name
        while free in different:
            number += 1
            free = f"{name}_{number}"
        different.append(free)
    return different
