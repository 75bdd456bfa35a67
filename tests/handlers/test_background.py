import os
import threading
import time

import pytest

import handlers
from handlers.event_queue import BATCH, EventQueue

STEP = ("training", "step")
OVERFLOW = ("telemetry", "handler", "overflow")


@pytest.fixture
def attach(bus, gated):
    def attach(**options):
        return handlers.attach("gated", events=STEP, registry=bus, **options)

    return attach


@pytest.fixture
def drops(bus):
    """The announcements of lost events."""
    found = []
    bus.attach("drops", OVERFLOW, lambda e, m, metadata, c: found.append((m["dropped"], metadata)))
    return found


def block(attachment, step):
    """Let the worker hang in the sink with event 0."""
    attachment.handler.gate.clear()
    step(0)
    assert attachment.handler.entered.wait(10)


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
    emitter.join(10)
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
    emitter.join(10)
    assert not emitter.is_alive()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)


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


# flush and close


def test_flush_waits_for_what_was_emitted_before_it_and_flushes_the_sink(attach, step):
    attachment = attach()
    block(attachment, step)
    assert attachment.flush(0.01) is False
    assert attachment.flush(0) is False
    assert attachment.handler.flushed == 0
    attachment.handler.gate.set()
    assert attachment.flush(10) is True
    assert attachment.handler.steps == [0]
    assert attachment.handler.flushed >= 1


def test_flush_raises_what_the_sink_raises(attach, step):
    attachment = attach()
    attachment.handler.flush = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        attachment.flush()  # no worker yet
    step(1)
    with pytest.raises(ZeroDivisionError):
        attachment.flush()


def test_flush_from_the_worker_cannot_wait_for_itself(attach, step):
    attachment = attach()
    answers = []
    attachment.handler.flush = lambda: answers.append(attachment.flush())
    step(1)
    assert attachment.flush()
    assert answers == [False]


def test_detaching_delivers_what_waits_and_closes(attach, step, drops):
    attachment = attach()
    for number in range(3 * BATCH):
        step(number)
    attachment.detach()
    assert attachment.handler.steps == list(range(3 * BATCH))
    assert attachment.handler.closed.is_set()
    assert attachment.flush() is True
    assert drops == []
    (thread,) = set(attachment.handler.threads)
    assert not thread.is_alive()


def test_detaching_waits_no_longer_than_the_timeout_and_counts_what_is_left(attach, step, drops):
    attachment = attach(flush_timeout=0.05)
    attachment.handler.gate.clear()
    for number in range(3):
        step(number)
    assert attachment.handler.entered.wait(10)
    attachment.detach()
    assert drops == [(3, {"handler_id": "gated", "policy": "drop_oldest"})]
    assert attachment.flush() is False
    assert not attachment.handler.closed.is_set()  # it hangs; closing it now could hang too
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)
    assert attachment.handler.steps == [0]


def test_an_event_that_comes_after_the_close_is_delivered_at_once(bus, attach):
    attachment = attach()
    worker = attachment._worker
    attachment.detach()
    worker(STEP, {"loss": 1.0}, {"step": 7}, None)
    assert attachment.handler.steps == [7]
    assert attachment.handler.threads == [threading.main_thread()]


def test_an_event_that_comes_after_a_close_that_hung_is_counted(attach, step, drops):
    attachment = attach(flush_timeout=0.0)
    worker = attachment._worker
    block(attachment, step)
    attachment.detach()
    before = sum(count for count, _ in drops)
    worker(STEP, {"loss": 1.0}, {"step": 7}, None)
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)
    assert attachment.handler.steps == [0]
    assert sum(count for count, _ in drops) + worker._losses.unannounced == before + 1


def test_a_sink_that_fails_in_the_worker_is_detached_first(bus, attach, step, drops, caplog):
    attachment = attach()
    failures = []

    def on_failure(event, measurements, metadata, config):
        failures.append((metadata["handler_id"], metadata["event_name"], attachment.active))

    bus.attach("failures", ("telemetry", "handler", "failure"), on_failure)
    block(attachment, step)
    step(1)
    step(2)
    attachment.handler.error = OSError("gone")
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)
    attachment._worker._thread.join(10)
    assert failures == [("gated", STEP, False)]
    assert drops == [(2, {"handler_id": "gated", "policy": "drop_oldest"})]
    assert attachment.handler.steps == []
    assert "Handler 'gated' failed on event training.step and was detached" in caplog.text


def test_the_announcement_of_a_failure_has_its_own_time(bus, attach, step):
    attachment = attach()
    times = []
    failure = ("telemetry", "handler", "failure")
    bus.attach("clock", failure, lambda *event: times.append(handlers.event_time_ns()))
    block(attachment, step)
    attachment.handler.error = OSError("gone")
    before = time.time_ns()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)
    assert times[0] >= before


def test_a_sink_that_is_kept_goes_on_after_a_failure(bus, attach, step, caplog):
    attachment = attach(on_failure="keep")
    block(attachment, step)
    attachment.handler.error = OSError("gone")
    attachment.handler.gate.set()
    assert attachment.flush()
    attachment.handler.error = None
    step(1)
    assert attachment.flush()
    assert attachment.handler.steps == [1]
    assert attachment.active


def test_detaching_from_the_worker_does_not_wait_for_itself(attach, step):
    attachment = attach()
    attachment.handler.then = lambda event: attachment.detach()
    block(attachment, step)
    step(1)
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(10)
    assert attachment.handler.steps == [0, 1]


def test_a_close_that_fails_is_logged(attach, step, caplog):
    attachment = attach()

    def close():
        raise OSError("cannot close")

    attachment.handler.close = close
    step(1)
    attachment.detach()
    assert "Handler 'gated' failed while it was being closed" in caplog.text
    assert "cannot close" in caplog.text


def test_where_no_thread_can_be_started_the_emitter_delivers(attach, step, monkeypatch):
    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    attachment = attach()
    monkeypatch.setattr(threading.Thread, "start", start)
    step(1)
    step(2)
    assert attachment.handler.steps == [1, 2]
    assert attachment.flush()
    attachment.detach()
    assert attachment.handler.closed.is_set()


def test_eight_threads_lose_and_double_nothing(bus, attach):
    attachment = attach()

    def emit(thread):
        for number in range(500):
            bus.execute(STEP, {}, {"step": (thread, number)})

    emitters = [threading.Thread(target=emit, args=(thread,)) for thread in range(8)]
    for emitter in emitters:
        emitter.start()
    for emitter in emitters:
        emitter.join()
    attachment.detach()
    steps = attachment.handler.steps
    assert len(steps) == 4000
    for thread in range(8):
        assert [n for t, n in steps if t == thread] == list(range(500))


# values on a device


class Remote:
    """Makes torch tensors that say they are on an accelerator, and note who reads them."""

    def __init__(self):
        torch = pytest.importorskip("torch")
        self.readers = readers = []

        class Tensor(torch.Tensor):
            @property
            def device(self):
                return torch.device("cuda")

            def tolist(self):
                readers.append(threading.current_thread())
                return self.as_subclass(torch.Tensor).tolist()

        self.make = lambda value: torch.tensor(value).as_subclass(Tensor)


def test_only_an_event_with_a_value_on_a_device_goes_to_the_worker(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    assert attachment.handler.threads == [threading.main_thread()]
    bus.execute(STEP, {"loss": remote.make(0.25)}, {"step": 2})
    bus.execute(STEP, {"loss": 0.5}, {"step": remote.make(3)})
    assert attachment.flush()
    assert attachment.handler.events == [
        (STEP, {"loss": 0.5}, {"step": 1}),
        (STEP, {"loss": 0.25}, {"step": 2}),
        (STEP, {"loss": 0.5}, {"step": 3}),
    ]
    assert threading.main_thread() not in attachment.handler.threads[1:] + remote.readers


def test_ordered_delivery_lets_nothing_overtake(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    attachment.handler.gate.clear()
    bus.execute(STEP, {"loss": remote.make(0.25)}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    attachment.handler.gate.set()
    assert attachment.flush()
    assert attachment.handler.steps == [1, 2]


def test_a_value_on_a_device_that_comes_after_the_close_is_read(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    attachment.detach()
    attachment._worker(STEP, {"loss": remote.make(0.25)}, {"step": 1}, None)
    assert attachment.handler.events == [(STEP, {"loss": 0.25}, {"step": 1})]


def test_memory_keeps_a_tensor_as_it_is(bus):
    remote = Remote()
    memory = handlers.attach("memory", registry=bus)
    tensor = remote.make(0.25)
    bus.execute(STEP, {"loss": tensor})
    assert memory.handler.events[0].measurements["loss"] is tensor
    assert remote.readers == []


# fork


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_forked_child_delivers_its_own_events_only(attach, step):
    attachment = attach()
    block(attachment, step)
    step(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        attachment.handler.gate.set()
        step(2)
        assert attachment.flush(10)
        os.write(writer, bytes(attachment.handler.steps))
        os._exit(0)
    attachment.handler.gate.set()
    assert attachment.flush()
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert list(pipe.read()) == [2]
    assert attachment.handler.steps == [0, 1]


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_fork_while_other_threads_emit_leaves_no_lock_held(bus, attach):
    attach(queue_size=50)
    stop = threading.Event()

    def emit():
        while not stop.is_set():
            bus.execute(STEP, {}, {"step": 0})

    emitters = [threading.Thread(target=emit) for _ in range(3)]
    for emitter in emitters:
        emitter.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                bus.execute(STEP, {}, {"step": 1})
                bus.detach("gated")
                os._exit(0)
            deadline = time.monotonic() + 20
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                assert time.monotonic() < deadline, "the child hangs"
                stop.wait(0.001)
    finally:
        stop.set()
        for emitter in emitters:
            emitter.join()


# the queue by itself


def test_a_batch_is_bounded():
    queue = EventQueue(10 * BATCH, "drop_oldest")
    for number in range(BATCH + 1):
        assert queue.put(number, may_wait=False) == "accepted"
    assert queue.take() == list(range(BATCH))
    assert len(queue) == BATCH + 1
    assert queue.discard() == BATCH + 1
    assert queue.done() is False


def test_a_queue_that_is_closed_gives_what_it_has_and_then_none():
    queue = EventQueue(4, "drop_oldest")
    queue.put("a", may_wait=False)
    queue.close()
    assert queue.put("b", may_wait=False) == "accepted"  # the worker is still there
    assert queue.take() == ["a", "b"]
    assert queue.take() is None
    assert queue.put("c", may_wait=False) == "closed"
    assert queue.request_flush().done()


def test_a_flush_is_due_when_all_before_it_is_done():
    queue = EventQueue(4, "drop_oldest")
    queue.put("a", may_wait=False)
    future = queue.request_flush()
    queue.put("b", may_wait=False)
    assert queue.due_flushes() == []
    assert queue.take() == ["a", "b"]
    assert queue.due_flushes() == []
    queue.done()
    assert queue.due_flushes() == [future]
    assert queue.due_flushes() == []
