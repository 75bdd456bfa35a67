import os
import threading
import time

import pytest

import handlers
from handlers.event_queue import BATCH

STEP = ("training", "step")


def block(attachment, step):
    """Let the worker hang in the sink with event 0."""
    attachment.handler.gate.clear()
    step(0)
    assert attachment.handler.entered.wait(60)


def test_flush_waits_for_what_was_emitted_before_it_and_flushes_the_sink(attach, step):
    attachment = attach()
    block(attachment, step)
    assert attachment.flush(0.01) is False
    assert attachment.flush(0) is False
    assert attachment.handler.flushed == 0
    attachment.handler.gate.set()
    assert attachment.flush(60) is True
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
    assert attachment.handler.entered.wait(60)
    attachment.detach()
    assert drops == [(3, {"handler_id": "gated", "policy": "drop_oldest"})]
    assert attachment.flush() is False
    assert not attachment.handler.closed.is_set()  # it hangs; closing it now could hang too
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
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
    assert attachment.handler.closed.wait(60)
    assert attachment.handler.steps == [0]
    assert sum(count for count, _ in drops) + worker._losses.unannounced == before + 1


def test_an_event_after_a_close_that_hung_in_a_flush_says_so(attach, step, caplog):
    attachment = attach(flush_timeout=0.0)
    entered, gate = threading.Event(), threading.Event()

    def flush():
        entered.set()
        assert gate.wait(300)

    attachment.handler.flush = flush
    step(0)
    attachment.flush()
    assert entered.wait(60)
    attachment.detach()
    attachment._worker(STEP, {"loss": 1.0}, {"step": 7}, None)
    gate.set()
    assert attachment.handler.closed.wait(60)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "Handler 'gated', events lost so far: 1 (drop_oldest): no end within 0.0 s"
    ]


def test_what_the_sink_has_kept_is_counted_with_what_waits(attach, step, drops):
    attachment = attach(flush_timeout=0.0)
    attachment.handler.kept = lambda: 10
    block(attachment, step)
    step(1)
    attachment.detach()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    assert sum(count for count, _ in drops) == 10 + 2


def test_a_sink_knows_that_what_it_has_was_counted(attach, step):
    attachment = attach(flush_timeout=0.0)
    answers = [handlers.given_up()]
    attachment.handler.then = lambda event: answers.append(handlers.given_up())
    step(0)
    assert attachment.flush(60)
    attachment.handler.entered.clear()
    block(attachment, step)
    attachment.detach()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    assert answers == [False, False, True]


def test_an_announcement_that_comes_after_the_close_is_no_loss(bus, attach, drops):
    attachment = attach()
    worker = attachment._worker
    attachment.detach()
    for event in ("overflow", "failure"):
        worker(("telemetry", "handler", event), {"dropped": 1}, {"handler_id": "other"}, None)
    assert attachment.handler.events == []
    assert drops == []


def test_detaching_from_the_worker_does_not_wait_for_itself(attach, step):
    attachment = attach()
    attachment.handler.then = lambda event: attachment.detach()
    block(attachment, step)
    step(1)
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
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
        assert attachment.flush(60)
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
