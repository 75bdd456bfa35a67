import json
import subprocess
import sys
import threading
import types

import pytest

import handlers
from telemetry import Registry

STEP = ("training", "step")
OVERFLOW = ("telemetry", "handler", "overflow")


class Gated:
    """A sink that keeps what it gets, and waits at its gate while that is shut."""

    delivery = "background"

    def __init__(self, site):
        self.site = site
        self.events = []
        self.times = []
        self.threads = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error = None
        self.then = lambda event: None
        self.flushed = 0
        self.closed = threading.Event()

    def __call__(self, event, measurements, metadata, config):
        self.entered.set()
        assert self.gate.wait(300)
        if self.error is not None:
            raise self.error
        self.times.append(handlers.event_time_ns())
        self.threads.append(threading.current_thread())
        self.events.append((event, measurements, metadata))
        self.then(event)

    @property
    def steps(self):
        return [metadata["step"] for event, _, metadata in self.events if event == STEP]

    def flush(self):
        self.flushed += 1

    def close(self):
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch):
    """A busy machine has its time: five seconds are for users, who wait for them."""
    monkeypatch.setitem(handlers.attach.__kwdefaults__, "flush_timeout", 60.0)


@pytest.fixture
def bus():
    """A bus of its own; what is still attached at the end is detached."""
    registry = Registry()
    yield registry
    for info in registry.list_handlers():
        registry.detach(info.id, missing_ok=True)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution that registers handlers."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def install(distribution, **entries):
        folder = tmp_path / "site" / f"{distribution}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
        names = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (folder / "entry_points.txt").write_text(f"[trainbus.handlers]\n{names}\n")
        return tmp_path / "site"

    return install


@pytest.fixture
def gated(install, monkeypatch):
    """Register the handler "gated", and give the class of its sinks."""
    module = types.ModuleType("gated_sinks")
    module.create = Gated
    monkeypatch.setitem(sys.modules, "gated_sinks", module)
    install("gated-sinks", gated="gated_sinks:create")
    return Gated


@pytest.fixture
def step(bus):
    """Emit a training step."""

    def step(number, **measurements):
        bus.execute(STEP, measurements or {"loss": 0.5}, {"step": number})

    return step


@pytest.fixture
def run_script(tmp_path):
    """Run a Python program in a process of its own; whatever it warns of is an error."""

    def run(source, *arguments, expect=0, **options):
        script = tmp_path / "script.py"
        script.write_text(source)
        command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, **options
        )
        assert done.returncode == expect, done.stderr
        return done

    return run


def read_lines(path):
    """The records of a file of lines, all of which must be whole."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def steps_of(records):
    return [record["metadata"]["step"] for record in records]


@pytest.fixture
def read():
    return read_lines


@pytest.fixture
def steps():
    return steps_of


@pytest.fixture
def attach(bus, gated):
    def attach(**options):
        return handlers.attach("gated", events=STEP, registry=bus, **options)

    return attach


@pytest.fixture
def ended():
    """Wait for the end of a worker: until all is announced, logged and closed.

    A handler that failed is detached before any of that, and who sees that is too early.
    """

    def ended(attachment):
        worker = attachment._worker._thread
        worker.join(60)
        assert not worker.is_alive()

    return ended


@pytest.fixture
def drops(bus):
    """The announcements of lost events."""
    found = []
    bus.attach("drops", OVERFLOW, lambda e, m, metadata, c: found.append((m["dropped"], metadata)))
    return found
