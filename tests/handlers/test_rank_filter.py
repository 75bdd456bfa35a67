import importlib
import threading
import time

import pytest

import handlers
from handlers.rank_filter import INTERVAL

STEP = ("training", "step")


@pytest.fixture(autouse=True)
def _no_rank(monkeypatch):
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"])
def test_on_another_rank_nothing_is_opened_but_the_bus_looks_the_same(
    bus, tmp_path, monkeypatch, variable
):
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv(variable, "2")
    attachment = handlers.attach("jsonl", path=tmp_path / "m.jsonl", events=STEP, registry=bus)
    bus.execute(STEP, {"loss": 0.5})
    assert bus.enabled(STEP)
    assert [info.event for info in bus.list_handlers()] == [STEP]
    assert attachment.flush()
    attachment.detach()
    assert not bus.enabled(STEP)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_built_no_filter_is_asked_and_no_worker_made(bus, gated, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    asked = []

    def where(*arguments):
        asked.append(arguments)
        raise OSError("gone")

    attachment = handlers.attach("gated", where=where, every=2, background=True, registry=bus)
    before = threading.active_count()
    for _ in range(3):
        bus.execute(STEP, {})
    assert asked == []
    assert attachment.active
    assert threading.active_count() == before
    assert bus.list_handlers()[0].function is attachment.handler
    assert attachment.flush()


def test_what_is_not_built_says_so(bus, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    attachment = handlers.attach("memory", registry=bus)
    with pytest.raises(AttributeError) as caught:
        attachment.handler.events  # noqa: B018 -- reading it is the test
    assert str(caught.value) == (
        "Handler 'memory' has no 'events' here: it is not built on rank 1, only on rank 0. "
        "To build it on all ranks: handlers.attach('memory', ranks='all', ...)."
    )


def test_mistakes_are_found_on_every_rank(bus, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(TypeError, match="has no option 'pth'"):
        handlers.attach("jsonl", pth="x", registry=bus)


def test_rank_zero_and_a_single_process_are_heard(bus, monkeypatch):
    single = handlers.attach("memory", registry=bus)
    monkeypatch.setenv("RANK", "0")
    zero = handlers.attach("memory", id="zero", registry=bus)
    for _ in range(20):
        bus.execute(STEP, {})
    assert len(single.handler.events) == len(zero.handler.events) == 20


def test_all_ranks_are_heard_when_asked_for(bus, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    memory = handlers.attach("memory", ranks="all", registry=bus)
    bus.execute(STEP, {})
    assert len(memory.handler.events) == 1


def test_a_rank_that_is_known_only_after_attaching_silences_the_others(run_script):
    importlib.import_module("torch")
    done = run_script(
        """
import sys, time
import handlers, telemetry
memory = handlers.attach("memory")
telemetry.execute(("before",), {})
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
dist.init_process_group("fake", rank=int(sys.argv[1]), world_size=2, store=FakeStore())
for _ in range(8):
    telemetry.execute(("early",), {})
deadline = time.monotonic() + 0.02
while time.monotonic() < deadline:
    pass
memory.handler.events.clear()
for _ in range(20):
    telemetry.execute(("after",), {})
print(len(memory.handler.events))
dist.destroy_process_group()
""",
        1,
    )
    assert int(done.stdout) < 8


def test_files_of_all_ranks_have_the_rank_in_their_names(bus, tmp_path, monkeypatch):
    expected = {
        "{rank}/m.jsonl": "3/m.jsonl",
        "m-{rank}.jsonl": "m-3.jsonl",
        "m.jsonl": "m.3.jsonl",
        "m.jsonl.gz": "m.3.jsonl.gz",
        "m.v2.jsonl": "m.v2.3.jsonl",
        "m": "m.3",
    }
    monkeypatch.setenv("RANK", "3")
    for path, name in expected.items():
        target = tmp_path / path
        with handlers.attach("jsonl", path=str(target), ranks="all", registry=bus) as attachment:
            bus.execute(STEP, {})
            assert attachment.handler.path == tmp_path / name
        assert (tmp_path / name).stat().st_size > 0


def test_a_placeholder_is_filled_on_rank_zero_too(bus, tmp_path):
    with handlers.attach("jsonl", path=tmp_path / "m-{rank}.jsonl", registry=bus) as attachment:
        assert attachment.handler.path == tmp_path / "m-0.jsonl"


def test_many_handlers_ask_for_the_rank_no_more_often_than_one(bus, monkeypatch):
    asked = []
    monkeypatch.setattr("handlers.rank_filter.rank", lambda: asked.append(1))
    for number in range(20):
        handlers.attach("memory", id=number, registry=bus)
    bus.execute(STEP, {})
    assert len(asked) == 20  # each as its first event comes
    began = time.monotonic()
    for _ in range(2000):
        bus.execute(STEP, {})
    most = (time.monotonic() - began) / INTERVAL
    assert len(asked) - 20 <= most + 1
