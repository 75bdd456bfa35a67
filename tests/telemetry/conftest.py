import subprocess
import sys
from pathlib import Path

import pytest

from telemetry import ALL, Event, Registry

ROOT = Path(__file__).resolve().parents[2]


class Recorder(list):
    """A handler that keeps the events it was called with, copied, and the configs beside them."""

    def __init__(self):
        super().__init__()
        self.configs = []

    def __call__(self, event, measurements, metadata, config):
        self.append(Event(event, dict(measurements), dict(metadata)))
        self.configs.append(config)

    @property
    def names(self):
        return [event.event for event in self]


@pytest.fixture
def bus():
    return Registry()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def heard(bus, recorder):
    """What was emitted on `bus`, all of it."""
    bus.attach("recorder", ALL, recorder)
    return recorder


@pytest.fixture
def new_recorder():
    return Recorder


@pytest.fixture
def run_script(tmp_path):
    """Run a Python program in a process of its own; what it says must be on stdout."""

    def run(source, *arguments, cwd=tmp_path, timeout=300):
        script = tmp_path / "script.py"
        script.write_text(source)
        return subprocess.run(
            [sys.executable, "-W", "error", script, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
