import os
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from telemetry import Registry

STEP = ("training", "step")


def memory(bus, **options):
    return handlers.attach("memory", registry=bus, **options).handler.events


def test_where_gets_the_event_and_decides(bus):
    seen = []

    def where(*arguments):
        seen.append(arguments)
        return arguments[1]["loss"] > 1

    events = memory(bus, where=where)
    for loss in (0.5, 1.5):
        bus.execute(STEP, {"loss": loss}, {"step": 3})
    assert seen == [(STEP, {"loss": 0.5}, {"step": 3}), (STEP, {"loss": 1.5}, {"step": 3})]
    assert [event.measurements["loss"] for event in events] == [1.5]


def test_a_where_that_raises_is_a_failure_of_the_handler(bus, caplog):
    failures = memory(bus, id="failures", events=("telemetry", "**"))
    attachment = handlers.attach(
        "memory", where=lambda event, m, md: m["no such"] > 1, registry=bus
    )
    bus.execute(STEP, {"loss": 0.5})
    assert not attachment.active
    assert [repr(failure.metadata["reason"]) for failure in failures] == ["KeyError('no such')"]


@given(
    names=st.lists(st.sampled_from([("a",), ("b",), ("c", "d")])),
    every=st.integers(min_value=1, max_value=5),
)
def test_every_passes_the_first_and_each_nth_of_a_name(names, every):
    bus = Registry()
    events = memory(bus, every=every)
    expected = []
    for index, name in enumerate(names):
        if names[:index].count(name) % every == 0:
            expected.append((name, index))
        bus.execute(name, {}, {"index": index})
    assert [(event.event, event.metadata["index"]) for event in events] == expected


def test_every_counts_what_threads_emit_together(bus):
    events = memory(bus, every=10)
    threads = [
        threading.Thread(target=lambda: [bus.execute(STEP, {}) for _ in range(1000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events) == 400


def test_every_remembers_a_bounded_number_of_names():
    from handlers.every import MAX_NAMES, every

    passed = []
    handle = every(lambda *event: passed.append(event[0]), 2)
    for number in range(MAX_NAMES):
        handle((f"made-up-{number}",), {}, {}, None)
    handle(("made-up-0",), {}, {}, None)
    assert len(passed) == MAX_NAMES  # it is still counted
    handle(("one more",), {}, {}, None)
    handle(("made-up-0",), {}, {}, None)
    assert len(passed) == MAX_NAMES + 2  # the counts began anew


def test_sample_passes_about_its_share_and_leaves_the_users_dice_alone(bus):
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    events = memory(bus, sample=0.25)
    for _ in range(4000):
        bus.execute(STEP, {})
    assert 800 < len(events) < 1200  # six standard deviations of 27 on either side
    assert [random.random() for _ in range(3)] == expected


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_forked_child_throws_other_dice(bus):
    events = memory(bus, sample=0.5)

    def picks():
        events.clear()
        for step in range(64):
            bus.execute(STEP, {}, {"step": step})
        return bytes(event.metadata["step"] for event in events)

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, picks())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() != picks()


def test_the_filters_are_asked_in_order_where_every_sample(bus):
    asked = []

    def where(event, measurements, metadata):
        asked.append(metadata["step"])
        return metadata["step"] % 2 == 0

    events = memory(bus, where=where, every=3, sample=1.0)
    for step in range(13):
        bus.execute(STEP, {}, {"step": step})
    assert asked == list(range(13))
    assert [event.metadata["step"] for event in events] == [0, 6, 12]


def test_filters_run_in_the_emitters_thread_before_the_worker(bus, gated):
    threads = []

    def where(event, measurements, metadata):
        threads.append(threading.current_thread())
        return True

    attachment = handlers.attach("gated", where=where, every=2, registry=bus)
    for step in range(3):
        bus.execute(STEP, {}, {"step": step})
    assert attachment.flush()
    assert set(threads) == {threading.main_thread()}
    assert attachment.handler.steps == [0, 2]
    assert threading.main_thread() not in attachment.handler.threads
