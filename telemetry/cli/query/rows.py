"""Answers to SQL as a table, CSV or JSON, row by row."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final

import click
import orjson
from rich.cells import cell_len

from telemetry.cli.output.printable import printable, printable_json
from telemetry.cli.query.answers import Answer
from telemetry.values import jsonable

SAMPLE: Final = 1000
"""Rows that tell how wide the columns of a table are."""
_ENDS: Final = "\r\n"
"""What a cell with either of them stands in quotes for: both end a line for those who read it."""
_WHOLE: Final = 2**53
"""Up to where a float can be any whole number."""
_NUMBERS: Final = ("INT", "FLOAT", "DOUBLE", "DECIMAL")


def as_table(answer: Answer) -> None:
    """Print a table; a block for each row, if the terminal is too narrow for one."""
    cells = ([_cell(value) for value in row] for row in answer.rows)
    first = list(islice(cells, SAMPLE))
    if not answer.names:
        return
    columns = zip(answer.names, *first, strict=True)
    widths = [max(cell_len(printable(text)) for text in column) for column in columns]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    if sum(widths) + 2 * (len(widths) - 1) > room:
        _print_blocks(answer.names, chain(first, cells))
        return
    right = [any(kind in given for kind in _NUMBERS) for given in answer.kinds]
    click.echo(click.style(_line(answer.names, widths, right), bold=True))
    for row in chain(first, cells):
        click.echo(_line(row, widths, right))


def as_csv(answer: Answer) -> None:
    """Print CSV with a header; what is NULL is empty.

    A terminal is shown no control characters; in files and pipes they are what they are.
    """
    shown = sys.stdout.isatty()
    rows = ([_exact(value) for value in row] for row in answer.rows)
    for row in chain([answer.names], rows):
        text = io.StringIO()
        cells = [printable(str(value)) for value in row] if shown else row
        csv.writer(text, lineterminator=_ENDS).writerow(cells)
        line = text.getvalue().removesuffix(_ENDS) + "\n"
        click.echo(line.encode(), nl=False)  # click takes colours out of what is text


def as_json(answer: Answer) -> None:
    """Print a list of objects, one a line; values of JSON are what they say."""
    shown = sys.stdout.isatty()
    before = b"[\n"
    for row in answer.rows:
        values = map(_value, row, answer.kinds)
        line = orjson.dumps(dict(zip(answer.names, values, strict=True)))
        click.echo(before + (printable_json(line) if shown else line), nl=False)
        before = b",\n"
    click.echo("[]" if before == b"[\n" else "\n]")


PRINTERS: Final[dict[str | None, Callable[[Answer], None]]] = {
    None: as_table,
    "csv": as_csv,
    "json": as_json,
}
"""By the option that asks for them."""


def _print_blocks(names: Sequence[str], rows: Iterator[list[str]]) -> None:
    width = max(cell_len(printable(name)) for name in names)
    for number, row in enumerate(rows, start=1):
        click.echo(click.style(f"row {number:,}", dim=True))
        for name, text in zip(names, row, strict=True):
            if text:
                click.echo(f"{click.style(_padded(name, width, right=False), bold=True)}  {text}")


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = map(lambda *cell: _padded(*cell[:2], right=cell[2]), row, widths, right)
    return "  ".join(cells).rstrip()


def _padded(text: str, width: int, *, right: bool) -> str:
    shown = printable(text)
    gap = " " * (width - cell_len(shown))
    return gap + shown if right else shown + gap


def _cell(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, float | Decimal):
        if -_WHOLE < value < _WHOLE and value == round(value):
            return f"{value:.0f}"
        return f"{value:.6g}".replace("nan", "NaN").replace("inf", "Infinity")
    return str(_exact(value))


def _exact(value: Any) -> Any:
    """A value in CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return jsonable(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict | tuple):
        return orjson.dumps(_plain(value)).decode()
    return value


def _value(value: Any, kind: str) -> Any:
    """A value in JSON."""
    if kind == "JSON" and value is not None:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value  # with a bare NaN in it
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it, however deep in lists and structures."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, timedelta) else jsonable(value)


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else orjson.dumps(plain).decode()
