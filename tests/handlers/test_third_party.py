"""The distribution in ``examples/`` installs by itself, and its handler is found by its name."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_handler"

PROGRAM = """
import math, sys
import handlers, telemetry
from handlers.clock import at_time

handlers.attach("graphite", port=int(sys.argv[1]), prefix="runs a")
with at_time(1_795_257_000_123_456_789):
    telemetry.execute(("training", "step"), {"loss": 2.5, "lr": 2e-4}, {"step": 1})
    telemetry.execute(("training", "step"), {"loss": math.nan}, {"step": 2})
    telemetry.execute(("training", "checkpoint"), {"size_bytes": 7}, {"checkpoint_name": "c"})
with telemetry.testing.capture(("telemetry", "handler", "overflow")) as lost:
    telemetry.detach("graphite")
print([event.measurements for event in lost], [event.metadata for event in lost])
for wrong in (
    {"port": 70_000},
    {"port": "2003"},
    {"port": 2003.5},
    {"port": True},
    {"host": ""},
    {"host": 5},
    {"prefix": 5},
):
    try:
        handlers.attach("graphite", **wrong)
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""

NOBODY = """
import handlers, socket, telemetry

held = socket.socket()
held.bind(("127.0.0.1", 0))  # and does not listen: nobody else can
graphite = handlers.attach("graphite", port=held.getsockname()[1], background=False)
for step in range(3):
    telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": step})
telemetry.detach("graphite")
print(graphite.lost)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    site = tmp_path_factory.mktemp("third_party") / "site"
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    options += ["--disable-pip-version-check", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, EXAMPLE], check=True)
    return site


@pytest.fixture
def graphite():
    """A TCP server: its port, and what was sent to it."""
    received = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                received.extend(lines.read().decode().splitlines())

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], received
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_an_installed_distribution_adds_a_handler(installed, graphite, run_script):
    port, received = graphite
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run_script(PROGRAM, port, env=environment)
    assert sorted(received) == [
        "runs_a.training.checkpoint.size_bytes 7.0 1795257000",
        "runs_a.training.loss 2.5 1795257000",
        "runs_a.training.lr 0.0002 1795257000",
    ]
    lost, *refused = done.stdout.splitlines()
    assert lost == "[{'dropped': 1}] [{'handler_id': 'graphite', 'policy': 'not_finite'}]"
    assert refused == [
        "ValueError Handler 'graphite': port must be from 1 to 65535, got 70000.",
        "TypeError Handler 'graphite': port must be an integer, got '2003' (str).",
        "TypeError Handler 'graphite': port must be an integer, got 2003.5 (float).",
        "TypeError Handler 'graphite': port must be an integer, got True (bool).",
        "ValueError Handler 'graphite': host must name a machine, got ''. Write host='127.0.0.1'.",
        "TypeError Handler 'graphite': host must be a string, got 5 (int).",
        "TypeError Handler 'graphite': prefix must be a string, got 5 (int).",
    ]


def test_its_own_announcements_are_no_losses_of_it(installed, run_script):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run_script(NOBODY, env=environment)
    assert done.stdout.splitlines() == ["{'no_connection': 3}"]


def test_without_it_the_handler_is_unknown(run_script):
    run_script("""
import handlers
try:
    handlers.attach("graphite")
except ValueError as error:
    assert str(error).startswith("Unknown handler 'graphite'. Known handlers: "), error
""")
