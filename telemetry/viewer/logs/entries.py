"""The events of a log, one by one: what was recorded is an event again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from telemetry.names import check_event
from telemetry.records import EventName
from telemetry.values import is_too_deep, restore_metadata, restore_number
from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.foreign import (
    EVENTS,
    STEPS,
    TIMES,
    TOO_DEEP,
    is_ours,
    split_metrics,
    used_of,
)
from telemetry.viewer.logs.lines import GZIPPED, MAGIC, Line, OnBad, read_lines
from telemetry.viewer.logs.parsing import parse_json
from telemetry.viewer.logs.times import time_of

RECORD: Final[EventName] = ("record",)
"""The event of a record that names none."""


class Entry(NamedTuple):
    """An event that was recorded.

    Attributes:
        source: The file.
        line: Which of its lines, counted from 1.
        time_ns: When it was emitted, in nanoseconds since 1970 (UTC); None where that is not said.
        event: Its name.
        measurements: Numbers, and what else was measured.
        metadata: What else is known.
    """

    source: Path
    line: int
    time_ns: int | None
    event: EventName
    measurements: dict[str, Any]
    metadata: dict[str, Any]


def read_entries(
    path: str | os.PathLike[str],
    *,
    on_bad: OnBad | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Entry]:
    """Read a log in constant memory, plain or gzipped, also while it is written.

    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` in measurements are numbers again, as are digits
    of integers beyond 64 bits, and ``telemetry_span_context`` is a `telemetry.SpanContext`. A
    record without an object ``measurements`` was written by another program: it is the event that
    its ``event`` or ``_type`` names, else ``("record",)``, with its metrics as measurements (see
    `telemetry.viewer.logs.foreign`).

    Args:
        path: The file, compressed if its name ends in ``.gz``.
        on_bad: Called with the number of each line that is no record, and why. By default, one
            `telemetry.viewer.BadLinesWarning` names them at the end.
        progress: Called with the number of bytes of each piece of the file that was read.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     log = Path(directory, "run.jsonl")
        ...     _ = log.write_text('{"step": 1, "metrics": {"train": {"loss": 2.5}}}')
        ...     [(e.line, e.event, e.measurements, e.metadata) for e in read_entries(log)]
        [(1, ('record',), {'train.loss': 2.5}, {'step': 1})]
    """
    source = Path(path)
    bad = BadLines(source)
    report = bad if on_bad is None else on_bad
    yield from entries_of(read_lines(source, report, progress), report)
    bad.warn()


def entries_of(lines: Iterator[Line], on_bad: OnBad) -> Iterator[Entry]:
    """The events of some lines; blank ones are none."""
    for line in lines:
        try:
            entry = entry_of(line) if line.text.strip() else None
        except ValueError as error:
            on_bad(line.number, str(error))
            continue
        if entry is not None:
            yield entry


def entry_of(line: Line) -> Entry:
    """The event of a line.

    Raises:
        ValueError: It holds no record.

    Example:
        >>> text = b'{"event": "rl.step", "measurements": {"entropy": "NaN"}, "metadata": {}}'
        >>> entry_of(Line(Path("run.jsonl"), 1, text)).measurements
        {'entropy': nan}
    """
    record = _record(line.text)
    if not is_ours(record):
        return _foreign(line, record)
    measurements, metadata = record["measurements"], record.get("metadata")
    event = _event(record["event"])
    metadata = restore_metadata(metadata) if isinstance(metadata, dict) else {}
    if event is None:
        metadata["event"] = record["event"]
    restored = {key: restore_number(value) for key, value in measurements.items()}
    time_ns = time_of(record.get("timestamp"))
    return Entry(line.source, line.number, time_ns, event or RECORD, restored, metadata)


def _record(text: bytes) -> dict[str, Any]:
    if text.startswith(MAGIC):
        raise ValueError(GZIPPED)
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError(f"no JSON object, but {type(record).__name__}")  # noqa: TRY004 -- the text is what is wrong
    if is_too_deep(used_of(record)):
        raise ValueError(TOO_DEEP)
    return record


def _foreign(line: Line, record: dict[str, Any]) -> Entry:
    """What another program wrote."""
    named, dated = _first(record, EVENTS), _first(record, TIMES)
    text = record.get(named)
    event = _event(text.replace("/", ".") if isinstance(text, str) else text)
    time_ns = time_of(record.get(dated))
    known = [key for key, value in ((named, event), (dated, time_ns)) if value is not None]
    rest = {key: value for key, value in record.items() if key not in known}
    measurements, metadata = split_metrics(rest)
    stepped = _first(record, STEPS)
    if stepped in metadata:
        metadata["step"] = metadata[stepped]
    return Entry(line.source, line.number, time_ns, event or RECORD, measurements, metadata)


def _first(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The first of some keys that a record has a value for."""
    return next((key for key in keys if record.get(key) is not None), keys[0])


def _event(text: object) -> EventName | None:
    try:
        return check_event(tuple(text.split("."))) if isinstance(text, str) else None
    except ValueError:
        return None
