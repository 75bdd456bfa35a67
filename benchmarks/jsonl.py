"""What the emitter of an event waits for until it is a line of JSON in a file.

Every contender writes the same record to a file of its own and hands each line to the kernel
before it goes on, so that a killed process has lost nothing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import loguru
import orjson
import structlog
from pythonjsonlogger.orjson import OrjsonFormatter

import handlers
from benchmarks.table import Bound, print_table
from benchmarks.timing import WALL_NS, Contender, measure
from telemetry import Registry

EVENT = ("training", "step")
NAME = "training.step"
VALUES = {
    "measurements": {"loss": 2.5432, "lr": 0.0002},
    "metadata": {"step": 1, "total_steps": 1000},
}
# The peer makes the very line that ours makes, the fastest way there is: orjson writes the
# datetime itself. A plain integer costs less still, but it is another record: no reader of
# ISO 8601 timestamps takes it.
BARE = "os.write(orjson.dumps), datetime"
OURS = "trainbus: jsonl handler"
LIMIT = 1.5


def run(rounds: int) -> None:
    with TemporaryDirectory() as directory, ExitStack() as stack:
        contenders = [
            stack.enter_context(make(Path(directory) / f"{number}.jsonl"))
            for number, make in enumerate(CONTENDERS)
        ]
        # Wall time: what the kernel makes the caller wait for counts too.
        results = measure(contenders, rounds, WALL_NS)
    print_table("JSONL, one line (wall time)", results, BARE, [Bound(OURS, BARE, LIMIT)])


@contextmanager
def _bare(label: str, timestamp: str, path: Path) -> Iterator[Contender]:
    record = (
        f"{{'timestamp': {timestamp}, 'event': name, "
        "'measurements': measurements, 'metadata': metadata}"
    )
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    names = {**_names(), "dumps": orjson.dumps, "options": options}
    statement = f"write(descriptor, dumps({record}, option=options))"
    with _descriptor(path) as descriptor:
        yield Contender(label, statement, {**names, "descriptor": descriptor})


@contextmanager
def _ours(path: Path) -> Iterator[Contender]:
    registry = Registry()
    names = {**VALUES, "execute": registry.execute, "event": EVENT}
    with handlers.attach("jsonl", path=path, registry=registry):
        yield Contender(OURS, "execute(event, measurements, metadata)", names)


@contextmanager
def _json(path: Path) -> Iterator[Contender]:
    record = (
        "{'timestamp': now(utc).isoformat(), 'event': name, "
        "'measurements': measurements, 'metadata': metadata}"
    )
    statement = f"write(descriptor, (dumps({record}) + '\\n').encode())"
    with _descriptor(path) as descriptor:
        names = {**_names(), "dumps": json.dumps, "descriptor": descriptor}
        yield Contender("os.write(json.dumps), isoformat()", statement, names)


@contextmanager
def _structlog(path: Path) -> Iterator[Contender]:
    with path.open("ab") as file:
        logger = structlog.wrap_logger(
            structlog.BytesLogger(file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
        ).bind()
        statement = "info(name, measurements=measurements, metadata=metadata)"
        yield Contender("structlog, orjson", statement, {**_names(), "info": logger.info})


@contextmanager
def _loguru(path: Path) -> Iterator[Contender]:
    logger = loguru.logger
    logger.remove()
    sink = logger.add(path, format=_as_template, catch=False)
    statement = "bind(measurements=measurements, metadata=metadata).info(name)"
    try:
        yield Contender("loguru, orjson", statement, {**_names(), "bind": logger.bind})
    finally:
        logger.remove(sink)


def _as_template(record: Any) -> str:
    # Loguru's own way to a JSON of one's choice: put it in `extra`, and name it in the template.
    extra = record["extra"]
    fields = {"timestamp": record["time"].isoformat(), "event": record["message"]}
    extra["line"] = orjson.dumps({**fields, **extra}).decode()
    return "{extra[line]}\n"


@contextmanager
def _python_json_logger(path: Path) -> Iterator[Contender]:
    logger = logging.getLogger("benchmarks.jsonl")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(path)
    handler.setFormatter(
        OrjsonFormatter("%(message)s", timestamp=True, rename_fields={"message": "event"})
    )
    logger.addHandler(handler)
    statement = "info(name, extra={'measurements': measurements, 'metadata': metadata})"
    with closing(handler):
        yield Contender("python-json-logger, orjson", statement, {**_names(), "info": logger.info})
    logger.removeHandler(handler)


CONTENDERS: Sequence[Callable[[Path], AbstractContextManager[Contender]]] = (
    partial(_bare, BARE, "now(utc)"),
    partial(_bare, "os.write(orjson.dumps), isoformat()", "now(utc).isoformat()"),
    partial(_bare, "os.write(orjson.dumps), time_ns()", "time_ns()"),
    _ours,
    _json,
    _structlog,
    _python_json_logger,
    _loguru,
)


def _names() -> dict[str, Any]:
    clocks = {"now": datetime.now, "utc": UTC, "time_ns": time.time_ns}
    return {**VALUES, **clocks, "name": NAME, "write": os.write}


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
