"""A Redis server on a Unix socket, and what lies on its streams."""

import contextlib
import os
import subprocess
import sys

import pytest
import redis as vendor
from click.testing import CliRunner
from redis.backoff import NoBackoff
from redis.retry import Retry

import handlers
from telemetry.cli import commands

RELAY = [sys.executable, "-W", "error", "-m", "telemetry", "relay"]


@pytest.fixture
def socket_path(tmp_path):
    return tmp_path / "redis.sock"


@pytest.fixture
def start(program, socket_path):
    """Start a server; ``start(*options)``."""

    def start(*options):
        client = vendor.Redis(unix_socket_path=str(socket_path), retry=Retry(NoBackoff(), 0))

        def ready():
            try:
                return client.ping()
            except vendor.AuthenticationError:
                return True
            except vendor.ConnectionError:
                return False

        return program(
            "redis-server",
            *("--port", 0, "--unixsocket", socket_path, "--save", "", *options),
            ready=ready,
            package="redis-server",
        )

    return start


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def url(socket_path):
    return f"unix://{socket_path}?db=0"


@pytest.fixture
def client(socket_path):
    with vendor.Redis(unix_socket_path=str(socket_path), decode_responses=True) as client:
        yield client


@pytest.fixture
def entries(client):
    return lambda stream="trainbus": [fields for _, fields in client.xrange(stream)]


@pytest.fixture
def send(bus, url):
    """Put training steps on the stream."""

    def send(*steps, **metadata):
        with handlers.attach("redis", registry=bus, url=url, ranks="all", overflow="block"):
            for step in steps:
                bus.execute(("training", "step"), {"loss": step / 2}, {"step": step, **metadata})

    return send


@pytest.fixture
def relay(url, tmp_path, monkeypatch):
    """Run a relay to its end: ``relay(*arguments, expect=0)``."""
    monkeypatch.chdir(tmp_path)

    def relay(*arguments, expect=0, place=url, **environment):
        done = CliRunner(env=environment).invoke(commands, ["relay", place, *map(str, arguments)])
        assert done.exit_code == expect, done.stderr
        assert done.exception is None or type(done.exception) is SystemExit
        return done

    return relay


@pytest.fixture
def start_relay(url, tmp_path):
    """Start a relay; what still runs at the end is killed."""
    with contextlib.ExitStack() as running:

        def start(*arguments, site=None):
            path = [str(site) if site else "", os.environ.get("PYTHONPATH", "")]
            environment = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
            process = subprocess.Popen(
                [*RELAY, url, *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, **environment},
                stderr=subprocess.PIPE,
                text=True,
            )
            running.callback(process.communicate)
            running.callback(process.kill)
            return process

        yield start


@pytest.fixture
def pending(client):
    return lambda group="relay": client.xpending("trainbus", group)["pending"]
