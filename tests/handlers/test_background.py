import threading
import time
import weakref

import handlers

STEP = ("training", "step")


def block(attachment, step):
    """Let the worker hang in the sink with event 0."""
    attachment.handler.gate.clear()
    step(0)
    assert attachment.handler.entered.wait(60)


def test_events_arrive_in_order_on_another_thread_with_the_time_of_execute(attach, step):
    attachment = attach()
    before = time.time_ns()
    for number in range(1000):
        step(number)
    after = time.time_ns()
    assert attachment.flush()
    assert attachment.handler.steps == list(range(1000))
    assert before <= attachment.handler.times[0]
    assert attachment.handler.times[-1] <= after
    assert attachment.handler.times == sorted(attachment.handler.times)
    (thread,) = set(attachment.handler.threads)
    assert thread.daemon
    assert thread.name == "trainbus-gated"


def test_what_waits_is_copied(bus, attach):
    attachment = attach()
    measurements, metadata = {"loss": 1.0}, {"step": 1}
    bus.execute(STEP, measurements, metadata)
    measurements["loss"], metadata["step"] = 2.0, 2
    assert attachment.flush()
    assert attachment.handler.events == [(STEP, {"loss": 1.0}, {"step": 1})]


def test_the_time_is_now_again_outside_of_a_delivery(attach, step):
    attachment = attach()
    step(1)
    assert attachment.flush()
    assert attachment.handler.times[0] < handlers.event_time_ns() <= time.time_ns()


def test_background_can_be_chosen_and_refused(bus, gated):
    direct = handlers.attach("gated", id="d", registry=bus, background=False)
    bus.execute(STEP, {})
    assert direct.handler.threads == [threading.main_thread()]
    gated.delivery = "ordered"
    behind = handlers.attach("gated", id="b", registry=bus, background=True)
    bus.execute(STEP, {})
    assert behind.flush()
    assert threading.main_thread() not in behind.handler.threads
    gated.delivery = "background"


# overflow


def test_drop_oldest_keeps_the_newest_and_announces_the_rest(attach, step, drops, caplog):
    attachment = attach(queue_size=2)
    block(attachment, step)
    for number in range(1, 10):
        step(number)
    attachment.handler.gate.set()
    attachment.detach()
    assert attachment.handler.steps == [0, 8, 9]
    assert sum(count for count, _ in drops) == 7
    assert drops[0] == (1, {"handler_id": "gated", "policy": "drop_oldest"})
    assert len(drops) == 2  # at once, and at the end
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "Handler 'gated', events lost so far: 1 (drop_oldest): the queue is full",
        "Handler 'gated', events lost so far: 7 (drop_oldest)",
    ]


class Value(float):
    """A number of which one can see whether it is still there."""


def test_a_sink_that_hangs_for_ever_costs_no_more_memory_than_its_queue(attach, step, drops):
    attachment = attach(queue_size=1000, flush_timeout=0.0)
    block(attachment, step)
    alive = weakref.WeakSet()
    for number in range(20_000):
        value = Value(number)
        alive.add(value)
        step(number, loss=value)
    del value
    assert len(alive) == 1000
    attachment.detach()
    assert len(alive) == 0
    assert sum(count for count, _ in drops) == 1 + 20_000  # the one that hangs with them
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)


def test_drop_newest_keeps_the_oldest(attach, step, drops):
    attachment = attach(queue_size=2, overflow="drop_newest")
    block(attachment, step)
    for number in range(1, 10):
        step(number)
    attachment.handler.gate.set()
    attachment.detach()
    assert attachment.handler.steps == [0, 1, 2]
    assert sum(count for count, _ in drops) == 7


def test_block_waits_for_room_and_loses_nothing(attach, step, drops):
    attachment = attach(queue_size=2, overflow="block")
    block(attachment, step)
    emitted = []

    def emit():
        for number in range(1, 10):
            step(number)
            emitted.append(number)

    emitter = threading.Thread(target=emit)
    emitter.start()
    while len(emitted) < 2:
        emitter.join(0.001)
    emitter.join(0.05)
    assert emitted == [1, 2]
    attachment.handler.gate.set()
    emitter.join(60)
    attachment.detach()
    assert attachment.handler.steps == list(range(10))
    assert drops == []


def test_block_does_not_block_the_worker_itself(bus, gated, drops):
    attachment = handlers.attach(
        "gated", events=[STEP, ("echo",)], registry=bus, queue_size=1, overflow="block"
    )

    def echo(event):
        if event == STEP:
            for _ in range(5):
                bus.execute(("echo",), {})

    attachment.handler.then = echo
    bus.execute(STEP, {}, {"step": 1})
    assert attachment.flush()
    attachment.detach()
    assert [event for event, _, _ in attachment.handler.events] == [STEP, ("echo",)]
    assert sum(count for count, _ in drops) == 4


def test_a_close_frees_an_emitter_that_waits_for_room(attach, step):
    attachment = attach(queue_size=1, overflow="block", flush_timeout=0.05)
    block(attachment, step)
    step(1)
    emitter = threading.Thread(target=step, args=(2,))
    emitter.start()
    attachment.detach()
    emitter.join(60)
    assert not emitter.is_alive()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)


def test_drops_are_announced_at_most_once_a_second(attach, step, drops, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("handlers.losses.time.monotonic", lambda: now[0])
    attachment = attach(queue_size=1)
    block(attachment, step)
    for seconds, number in ((0.0, 10), (0.9, 10), (0.2, 10), (0.9, 10)):
        now[0] += seconds
        for _ in range(number):
            step(1)
    # The first event found room. Then one was announced at once, and the others a second later.
    assert [count for count, _ in drops] == [1, 19]
    attachment.handler.gate.set()
    attachment.detach()
    assert [count for count, _ in drops] == [1, 19, 19]
