"""Worker processes of a DataLoader that emit: each event once, and nobody waits for ever."""

import json
import os
import socket

import pytest
import redis

PROGRAM = r"""
import json, sys
import handlers, telemetry, torch
from telemetry.metrics import counter
from torch.utils.data import DataLoader, Dataset

PLACES = json.loads(sys.argv[2])

def attach():
    handlers.attach("jsonl", path="events.jsonl", background=True)
    handlers.attach("redis", url=PLACES["redis"], stream="events")
    handlers.attach(
        "datadog",
        host="127.0.0.1",
        port=PLACES["udp"],
        metrics=[counter("dataset.batch.batch_size", report_as="batches")],
    )

class Items(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        telemetry.execute(("dataset", "batch"), {"batch_size": 1}, {"batch_idx": index})
        return index

def begin(worker):
    if sys.argv[1] == "spawn":
        attach()

if __name__ == "__main__":
    attach()
    telemetry.execute(("training", "step"), {"loss": 0.5}, {"step": 0})  # starts the threads
    loader = DataLoader(
        Items(), num_workers=2, multiprocessing_context=sys.argv[1], worker_init_fn=begin
    )
    assert sorted(item.item() for item in loader) == list(range(20))
    telemetry.execute(("training", "step"), {"loss": 0.5}, {"step": 1})
    handlers.detach_all()
"""


@pytest.fixture
def stream(program, tmp_path):
    """What is on the stream of a Redis server, as records; and the server's URL."""
    path = tmp_path / "redis.sock"
    client = redis.Redis(unix_socket_path=str(path))

    def ready():
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    options = ("--port", 0, "--unixsocket", path, "--save", "")
    program("redis-server", *options, ready=ready, package="redis-server")
    yield f"unix://{path}", lambda: [fields for _, fields in client.xrange("events")]
    client.close()


@pytest.fixture
def agent():
    """A UDP socket, and the lines that came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(0)

        def lines():
            found = []
            while True:
                try:
                    found += bound.recv(65_536).decode().split("\n")
                except BlockingIOError:
                    return found

        yield bound.getsockname()[1], lines


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_events_of_data_workers_arrive_once(
    run_script, tmp_path, read, steps, stream, agent, method
):
    url, entries = stream
    port, lines = agent
    run_script(
        PROGRAM,
        method,
        json.dumps({"redis": url, "udp": port}),
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    records = read(tmp_path / "events.jsonl")
    batches = [one["metadata"]["batch_idx"] for one in records if one["event"] == "dataset.batch"]
    assert sorted(batches) == list(range(20))
    assert steps(one for one in records if one["event"] == "training.step") == [0, 1]
    assert len(records) == 22

    assert len(entries()) == 22
    counted = [line.split("|")[0].split(":") for line in lines() if line.startswith("batches:")]
    assert sum(float(value) for _, value in counted) == 20
