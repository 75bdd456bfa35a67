"""Logs, written by hand."""

import json

import pytest

from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.sources import find_logs


@pytest.fixture
def write(tmp_path):
    """Write records, or lines as they are, into a file."""

    def write_file(name, records, *, mode="wb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
        with path.open(mode) as file:
            file.write(b"".join(line + b"\n" for line in lines))
        return path

    return write_file


@pytest.fixture
def step_of():
    """A record of `training.step`."""

    def record(step, loss, **metadata):
        return {
            "timestamp": f"2026-11-21T10:30:{step:02}.000000Z",
            "event": "training.step",
            "measurements": {"loss": loss},
            "metadata": {"step": step, **metadata},
        }

    return record


@pytest.fixture
def open_records():
    """Records of some paths, closed at the end of the test."""
    opened = []

    def open_them(paths, **options):
        opened.append(Records(find_logs(paths), **options))
        return opened[-1]

    yield open_them
    for records in opened:
        records.connection.close()
