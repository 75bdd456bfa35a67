"""The way of lines into DuckDB."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from telemetry.extras import import_extra
from telemetry.viewer.logs.lines import LONGEST_LINE

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory, which spills to disk what does not fit.

    Raises:
        MissingExtraError: DuckDB is not installed.
    """
    engine = import_extra("duckdb", extra="viewer", feature="telemetry.viewer")
    connection: duckdb.DuckDBPyConnection = engine.connect()
    spilled = Path(tempfile.gettempdir(), f"trainbus-{secrets.token_hex(8)}")  # made when needed
    connection.execute(f"SET TimeZone = 'UTC'; SET temp_directory = {quoted(str(spilled))}")
    connection.execute("SET enable_external_file_cache = false")  # no file is read twice
    ((has_bar,),) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    if has_bar:  # in a notebook without ipywidgets it has none, and to say so is an error
        connection.execute("SET enable_progress_bar = false")
    return connection


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """What some work of the engine gives, until Ctrl-C, which the engine itself does not hear.

    Args:
        connection: The engine's.
        work: Done by another thread, for which the main thread waits.

    Example:
        >>> connection = connect()
        >>> interruptible(connection, lambda: connection.execute("SELECT 1").fetchall())
        [(1,)]
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    given: Future[T] = Future()
    given_up = threading.Event()

    def run() -> None:
        try:
            if not given_up.is_set():
                given.set_result(work())
        except BaseException as error:
            given.set_exception(error)

    thread = threading.Thread(target=run, name="trainbus-engine", daemon=True)
    try:
        thread.start()
        return given.result()
    finally:
        given_up.set()  # Ctrl-C may come before the thread begins
        while thread.is_alive():  # nor can work be interrupted before it has begun
            if not given.done():
                connection.interrupt()
            thread.join(timeout=0.05)


def lines_of(path: str | Path) -> str:
    """The lines of a file as a table with the column ``text``, in SQL.

    They are read as a CSV of one column without quotes, which two threads do at once.
    """
    return (
        f"read_csv({quoted(str(path))}, columns={{text: 'VARCHAR'}}, delim='\\x01', quote='', "
        "escape='', header=false, auto_detect=false, new_line='\\n', strict_mode=false, "
        f"max_line_size={LONGEST_LINE + 1}, store_rejects=true)"  # with its end
    )


def take_rejected(connection: duckdb.DuckDBPyConnection) -> int:
    """How many lines could not even be read as text by `lines_of`, since this was asked last."""
    ((lines,),) = connection.execute(
        "SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors"
    ).fetchall()
    if lines:
        connection.execute("DELETE FROM reject_errors; DELETE FROM reject_scans")
    return int(lines)


def can_be_named(path: Path) -> bool:
    """Whether the engine takes a path as it is, and not as a pattern or an address."""
    try:
        text = str(path).encode().decode()
    except UnicodeEncodeError:  # it is no UTF-8, and the engine's names are
        return False
    return not set("*?[]{}") & set(text) and "://" not in text


def quoted(text: str) -> str:
    """A text as a literal of SQL; what is no UTF-8, as in names of files, is a question mark.

    Example:
        >>> print(quoted("it's"))
        'it''s'
    """
    return "'" + text.encode("utf-8", "replace").decode().replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as SQL writes any name.

    Example:
        >>> print(identifier("training.loss"))
        "training.loss"
    """
    return '"' + name.replace('"', '""') + '"'
