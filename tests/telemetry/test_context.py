import asyncio
import contextvars
import threading

import pytest

import telemetry
from telemetry import Registry


@pytest.fixture
def seen(bus, recorder):
    """The metadata of each ``("a",)`` emitted by `emit`."""
    bus.attach("h", ("a",), recorder)

    def emit(**metadata):
        bus.execute(("a",), {}, metadata)
        return recorder[-1].metadata

    return emit


def test_metadata_is_merged_into_every_event_inside(seen):
    with telemetry.context(run_id="r", epoch=1):
        assert seen() == {"run_id": "r", "epoch": 1}
        assert seen(step=3) == {"run_id": "r", "epoch": 1, "step": 3}
    assert seen(step=4) == {"step": 4}


def test_blocks_nest_and_the_inner_one_wins(seen):
    with telemetry.context(run_id="r", step=1):
        with telemetry.context(step=2, phase="eval"):
            assert seen() == {"run_id": "r", "step": 2, "phase": "eval"}
        assert seen() == {"run_id": "r", "step": 1}


def test_explicit_metadata_wins(seen):
    with telemetry.context(step=1, run_id="r"):
        assert seen(step=7) == {"run_id": "r", "step": 7}


def test_the_callers_mapping_is_not_written_to(bus, recorder):
    bus.attach("h", ("a",), recorder)
    mine = {"step": 1}
    with telemetry.context(run_id="r"):
        bus.execute(("a",), {}, mine)
    assert mine == {"step": 1}


def test_an_exception_leaves_the_block(seen):
    with pytest.raises(KeyError, match="x"), telemetry.context(step=1):
        raise KeyError("x")
    assert seen() == {}


def test_it_can_be_entered_again_also_inside_itself(seen):
    block = telemetry.context(step=1)
    for _ in range(2):
        with block:
            with telemetry.context(step=2), block:
                assert seen() == {"step": 1}
            assert seen() == {"step": 1}
        assert seen() == {}


def test_an_empty_block_changes_nothing(seen):
    with telemetry.context():
        assert seen(step=1) == {"step": 1}


def test_it_is_shared_by_all_registries(new_recorder):
    first, second = Registry(), Registry()
    recorders = new_recorder(), new_recorder()
    for registry, recorder in zip((first, second), recorders, strict=True):
        registry.attach("h", ("a",), recorder)
    with first.context(run_id="r"):
        first.execute(("a",), {})
        second.execute(("a",), {})
    assert [r[0].metadata for r in recorders] == [{"run_id": "r"}] * 2


def test_a_task_inherits_it_and_keeps_its_own(seen):
    async def worker(step, turn, others):
        with telemetry.context(step=step):
            turn.set()
            await others.wait()
            return seen()

    async def main():
        ready = [asyncio.Event() for _ in range(3)]
        with telemetry.context(run_id="r"):
            tasks = [asyncio.create_task(worker(i, ready[i], ready[(i + 1) % 3])) for i in range(3)]
        assert seen() == {}
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [{"run_id": "r", "step": i} for i in range(3)]


def test_a_thread_starts_without_and_takes_a_copy_if_it_is_given_one(seen):
    found = []

    def work():
        found.append(seen())

    with telemetry.context(run_id="r"):
        bare = threading.Thread(target=work)
        given = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        for thread in (bare, given):
            thread.start()
            thread.join()
    assert found == [{}, {"run_id": "r"}]


def test_one_block_shared_by_interleaved_tasks_is_left_by_each(seen):
    block = telemetry.context(run_id="r")

    async def first(entered, resume):
        with block:
            entered.set()
            await resume.wait()
        return seen()

    async def second(entered, resume):
        await entered.wait()
        with block:
            resume.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside = seen()
        return inside, seen()

    async def main():
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(first(*events), second(*events))

    assert asyncio.run(main()) == [{}, ({"run_id": "r"}, {})]


def test_one_block_shared_by_threads_is_left_by_each(seen):
    block = telemetry.context(run_id="r")
    inside, left = threading.Barrier(2), threading.Barrier(2)
    found = []

    def work(first):
        with block:
            inside.wait(60)
            if not first:
                left.wait(60)
        if first:
            left.wait(60)
        found.append(seen())

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{}, {}]


def test_a_generator_closed_in_another_context_leaves_that_one_alone(seen):
    def steps():
        with telemetry.context(step=1):
            yield seen()

    generator = steps()
    assert contextvars.copy_context().run(next, generator) == {"step": 1}
    with telemetry.context(run_id="r"):
        generator.close()
        assert seen() == {"run_id": "r"}


def test_it_reaches_failure_events_and_spans(bus, recorder):
    bus.attach("bad", ("a",), lambda *_: 1 / 0)
    bus.attach("h", ("telemetry", "handler", "failure"), recorder)
    bus.attach("spans", ("s", "**"), recorder)
    with telemetry.context(run_id="r"):
        bus.execute(("a",), {})
        with bus.span(("s",)):
            pass
    assert [e.metadata["run_id"] for e in recorder] == ["r"] * 3


def test_any_name_can_be_a_key(bus, heard):
    with telemetry.context(self=1, metadata=2):
        bus.execute(("a",), {})
    assert heard[0].metadata == {"self": 1, "metadata": 2}
