"""W&B on disk only, and a strict reader of the files it writes."""

import http.server
import json
import os
import struct
import threading
import types
import zlib

import pytest

import handlers

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4

QUICK = {"x_disable_stats": True, "x_disable_machine_info": True, "disable_git": True}
"""A run that looks at nothing but what it is given."""


def chunks_of(data):
    """The chunks of a log of LevelDB's format, behind W&B's header of seven bytes.

    A killed process leaves a chunk that is cut off at the very end; no other is allowed. So does
    one that is just writing it.
    """
    header = b":W&B\xe1\xbe\x00"
    assert data[:7] == header[: len(data)], data[:7]
    position = 7
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:
            assert not any(data[position : position + left]), "padding that is none"
            position += left
            continue
        if len(data) - position < HEADER.size:
            return
        checksum, length, kind = HEADER.unpack_from(data, position)
        assert length <= left - HEADER.size, "a chunk that crosses a block"
        body = data[position + HEADER.size : position + HEADER.size + length]
        if len(body) < length:
            return
        assert zlib.crc32(bytes([kind]) + body) == checksum
        yield kind, body
        position += HEADER.size + length


def records_of(path):
    """The records of a ``.wandb`` file, each of which must be numbered one above the last."""
    from wandb.proto import wandb_internal_pb2

    parts = []
    number = 0
    for kind, body in chunks_of(path.read_bytes()):
        assert bool(parts) == (kind in (MIDDLE, LAST)), "a chunk without its neighbour"
        parts.append(body)
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            number += 1
            assert record.num in (0, number)
            yield record


def read_run(path):
    """What a run's file says: its rows, axes, alerts, configuration and end."""
    found = types.SimpleNamespace(rows=[], axes={}, hidden=set(), alerts=[], config={}, exits=[])
    for record in records_of(path):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            found.rows.append(row_of(record.history))
        elif kind == "metric":
            name = record.metric.glob_name or record.metric.name
            if record.metric.step_metric:
                found.axes[name] = record.metric.step_metric
            if record.metric.options.hidden:
                found.hidden.add(name)
        elif kind == "alert":
            alert = record.alert
            found.alerts.append((alert.title, alert.text, alert.level, alert.wait_duration))
        elif kind == "exit":
            found.exits.append(record.exit.exit_code)
        elif kind == "run":
            found.project = record.run.project
            found.id = record.run.run_id
            found.name = record.run.display_name
            found.tags = list(record.run.tags)
            for item in record.run.config.update:
                found.config[item.key] = json.loads(item.value_json)
    return found


def row_of(history):
    row = {}
    for item in history.item:
        key = item.key or "/".join(item.nested_key)
        assert key not in row, "a key twice in one row"
        row[key] = json.loads(item.value_json)
    return row


@pytest.fixture(autouse=True)
def wandb_home(tmp_path, monkeypatch):
    """Nothing of the user's is read or written, and nothing is sent."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return home


@pytest.fixture
def vendor(wandb_home):
    """The vendor's module, which reads the environment once until it is torn down."""
    import wandb

    wandb.finish()  # what another test may have left active
    wandb.teardown()
    yield wandb
    wandb.finish()
    wandb.teardown()


@pytest.fixture
def attach(bus, tmp_path, vendor):
    """Attach the handler to a bus of the test's, with a run on disk."""

    def attach(**options):
        own = {"project": "demo", "mode": "offline", "dir": tmp_path, "settings": QUICK}
        return handlers.attach("wandb", registry=bus, **({} if "run" in options else own) | options)

    return attach


@pytest.fixture
def written(tmp_path):
    """Read what is in the files of the runs by now, the oldest first."""

    def written(folder=tmp_path):
        paths = sorted(folder.glob("wandb/*run-*/*.wandb"), key=lambda path: path.stat().st_ctime)
        return [read_run(path) for path in paths]

    return written


@pytest.fixture
def runs(written, wait_until, tmp_path):
    """Read the runs when all are finished: W&B's own process writes the last of it by itself."""

    def finished(folder):
        found = written(folder)
        return found if all(run.exits for run in found) else []

    def runs(folder=tmp_path):
        return wait_until(lambda: finished(folder))

    return runs


@pytest.fixture
def values():
    """A row without what W&B adds."""

    def values(row):
        return {key: value for key, value in row.items() if not key.startswith("_")}

    return values


class Server(http.server.ThreadingHTTPServer):
    """As much of W&B's server as a run needs: it keeps what comes, and can fail or hang."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.streams = []
        self.status = 200
        self.hangs = False
        self.hangs_on = None  # what the paths of the requests end in that are not answered
        self.released = threading.Event()

    @property
    def rows(self):
        """The rows of all runs, as they came."""
        files = [stream.get("files", {}).get("wandb-history.jsonl", {}) for stream in self.streams]
        return [json.loads(line) for file in files for line in file.get("content", [])]

    def handle_error(self, request, client_address):
        """Clients that give up are what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hangs_on = self.server.hangs_on
        if self.server.hangs or (hangs_on and self.path.endswith(hangs_on)):
            self.server.released.wait(600)
        if self.path.endswith("/file_stream"):
            self.server.streams.append(json.loads(body))
        answer = json.dumps(self.answer(body)).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST  # noqa: N815 -- names of http.server

    def answer(self, body):
        """Where the files of a run are to be put; other questions need no answer."""
        asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
        if "createRunFiles" not in asked["query"]:
            return {}
        names = asked["variables"]["files"]
        files = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in names]
        return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}

    def log_message(self, *arguments):
        """Nothing on the test's standard error."""


@pytest.fixture
def online(monkeypatch, vendor):
    """A server on loopback, and an environment that says that W&B is there."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    server.released.set()
    vendor.teardown()  # what its own process still sends has somewhere to go
    server.shutdown()
    server.server_close()
    thread.join()
