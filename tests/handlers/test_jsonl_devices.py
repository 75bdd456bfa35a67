import importlib
import math
import threading
from types import MappingProxyType

import pytest

import handlers
import telemetry
from handlers.jsonl import create

STEP = ("training", "step")


# values on a device


def test_a_jax_value_that_is_still_being_computed_does_not_hold_the_emitter(bus, tmp_path, read):
    import jax.numpy as jnp

    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    emitted = []

    def returned_before_it_was_ready():
        array = jnp.ones((1200, 1200))
        for _ in range(12):
            array = array @ array / 1200
        emitted.append(1.0)
        bus.execute(STEP, {"loss": array[0, 0]}, {"step": len(emitted)})
        return not array.is_ready()

    # On a busy machine this thread may be held up until it is; not time and again.
    assert any(returned_before_it_was_ready() for _ in range(20))
    bus.execute(STEP, {"loss": 0.5}, {"step": len(emitted) + 1})
    assert attachment.flush(60)
    records = sorted(read(path), key=lambda record: record["timestamp"])
    assert [(r["metadata"]["step"], r["measurements"]["loss"]) for r in records] == list(
        enumerate([*emitted, 0.5], start=1)
    )


@pytest.fixture
def remote():
    """Make tensors that say they are on an accelerator, and note which threads read them."""
    torch = importlib.import_module("torch")

    readers = set()

    class OnDevice(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        def tolist(self):
            readers.add(threading.current_thread())
            return self.as_subclass(torch.Tensor).tolist()

    def remote(value):
        return torch.tensor(value).as_subclass(OnDevice)

    remote.readers = readers
    return remote


def test_the_time_of_a_deferred_event_is_that_of_execute(bus, tmp_path, read, remote):
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {"loss": remote(0.25)}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    attachment.detach()
    attachment.handler(STEP, {"loss": remote(0.75)}, {"step": 3}, None)
    records = sorted(read(path), key=lambda record: record["timestamp"])
    assert [(r["metadata"]["step"], r["measurements"]["loss"]) for r in records] == [
        (1, 0.25),
        (2, 0.5),
        (3, 0.75),
    ]


@pytest.mark.parametrize(
    "place",
    [
        lambda tensor: ({"loss": tensor}, {}),
        lambda tensor: ({}, {"loss": tensor}),
        lambda tensor: ({}, MappingProxyType({"loss": tensor})),
        lambda tensor: ({"seed": 2**70, "loss": tensor}, {}),
        lambda tensor: ({"loss": math.nan, "norms": tensor}, {1: "a"}),
    ],
)
def test_no_thread_but_the_worker_reads_a_device(bus, tmp_path, read, remote, place):
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, *place(remote(0.25)))
    assert attachment.flush()
    (worker,) = remote.readers
    assert worker.name == "trainbus-jsonl"
    (record,) = read(path)
    assert 0.25 in {**record["measurements"], **record["metadata"]}.values()


def test_a_sink_by_itself_writes_whatever_it_takes(tmp_path, read, bus, remote):
    site = handlers.Site("by hand", bus, (telemetry.ALL,), "zero")
    sink = create(site, path=tmp_path / "m.jsonl")
    sink(STEP, {"loss": remote(0.25)}, {}, None)
    sink.close()
    assert read(tmp_path / "m.jsonl")[0]["measurements"] == {"loss": 0.25}
