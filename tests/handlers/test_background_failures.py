import threading
import time
from collections.abc import Mapping

import pytest

import handlers

STEP = ("training", "step")


def block(attachment, step):
    """Let the worker hang in the sink with event 0."""
    attachment.handler.gate.clear()
    step(0)
    assert attachment.handler.entered.wait(60)


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
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert failures == [("gated", STEP, False)]
    assert drops == [(2, {"handler_id": "gated", "policy": "failed"})]
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
    assert attachment.handler.closed.wait(60)
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


def test_a_sink_that_fails_is_not_called_again(bus, attach, step):
    attachment = attach()
    calls = []

    def deliver(event, measurements, metadata, config):
        attachment.handler.entered.set()
        assert attachment.handler.gate.wait(300)
        calls.append(metadata["step"])
        raise OSError("gone")

    attachment._worker._deliver_one = deliver
    attachment.handler.gate.clear()
    for number in range(3):  # one batch, or two
        step(number)
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    attachment._worker(STEP, {}, {"step": 9}, None)
    assert calls == [0]
    assert attachment.flush() is False


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_would_end_a_thread_is_a_failure_like_others(bus, attach, step, drops, error):
    attachment = attach(queue_size=1, overflow="block")
    reasons = []
    failure = ("telemetry", "handler", "failure")
    bus.attach("failures", failure, lambda e, m, metadata, c: reasons.append(metadata["reason"]))
    block(attachment, step)
    step(1)
    emitter = threading.Thread(target=step, args=(2,), daemon=True)
    emitter.start()
    attachment.handler.error = error
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    emitter.join(60)
    attachment._worker._thread.join(60)
    assert not emitter.is_alive()
    assert not attachment.active
    (reason,) = reasons
    assert type(reason) is RuntimeError
    assert str(reason) == f"sink raised {error!r}"
    assert reason.__cause__ is error


def test_a_kept_sink_goes_on_after_a_system_exit(attach, step):
    attachment = attach(on_failure="keep")
    attachment.handler.error = SystemExit()
    step(0)
    assert attachment.flush()
    attachment.handler.error = None
    step(1)
    assert attachment.flush()
    assert attachment.handler.steps == [1]


@pytest.mark.parametrize("policy", ["keep", "detach"])
def test_who_hears_of_a_failure_cannot_end_the_worker(bus, attach, step, caplog, policy):
    attachment = attach(on_failure=policy)

    def leave(event, measurements, metadata, config):
        raise SystemExit

    bus.attach("leaver", ("telemetry", "handler", "failure"), leave)
    attachment.handler.error = OSError("gone")
    step(0)
    attachment._worker._thread.join(0 if policy == "keep" else 10)
    assert attachment.flush() is (policy == "keep")
    assert "Handler 'gated': an error on its worker thread" in caplog.text
    attachment.detach()
    assert attachment.handler.closed.is_set()


def test_a_flush_that_would_end_the_worker_is_told_to_who_asked(attach, step):
    attachment = attach()

    def flush():
        raise SystemExit(3)

    attachment.handler.flush = flush
    step(0)
    with pytest.raises(RuntimeError) as caught:
        attachment.flush()
    assert str(caught.value) == "sink raised SystemExit(3)"
    step(1)
    attachment.detach()
    assert attachment.handler.steps == [0, 1]
    assert attachment.handler.closed.is_set()


def test_a_close_that_would_end_the_worker_leaves_no_flush_waiting(attach, step, caplog):
    attachment = attach()

    def close():
        raise SystemExit(3)

    attachment.handler.close = close
    step(0)
    attachment.detach()
    assert attachment.flush() is True
    assert "Handler 'gated': an error on its worker thread" in caplog.text


def test_an_error_of_the_worker_itself_frees_who_waits(attach, step, monkeypatch, caplog):
    attachment = attach(queue_size=1, overflow="block")

    def broken(mappings):
        attachment.handler.entered.set()
        assert attachment.handler.gate.wait(300)
        raise MemoryError

    monkeypatch.setattr("handlers.background.read_many", broken)
    block(attachment, step)
    step(1)
    emitter = threading.Thread(target=step, args=(2,), daemon=True)
    emitter.start()
    attachment.handler.gate.set()
    emitter.join(60)
    assert not emitter.is_alive()
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert "Handler 'gated': an error on its worker thread" in caplog.text


def test_ctrl_c_while_the_main_thread_delivers_is_not_held_back(bus, gated, monkeypatch):
    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    attachment = handlers.attach("gated", events=STEP, registry=bus)
    monkeypatch.setattr(threading.Thread, "start", start)
    attachment.handler.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bus.execute(STEP, {}, {"step": 1})


class Unreadable(Mapping):
    """A mapping whose items cannot be read."""

    def __len__(self):
        return 1

    def __iter__(self):
        return iter(["loss"])

    def __getitem__(self, key):
        raise OSError("no item")

    def __repr__(self):
        return "<unreadable>"


def test_a_mapping_whose_items_raise_is_kept_as_its_repr(bus, attach):
    attachment = attach()
    bus.execute(STEP, Unreadable(), {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, Unreadable())
    assert attachment.flush()
    assert attachment.active
    assert attachment.handler.events == [
        (STEP, {"unreadable": "<unreadable>"}, {"step": 1}),
        (STEP, {"loss": 0.5}, {"unreadable": "<unreadable>"}),
    ]


def test_metadata_that_is_no_mapping_stays_the_emitters_mistake(bus, attach):
    attachment = attach()
    with pytest.raises(TypeError, match=r"Metadata of event .* must be a mapping, got 3"):
        bus.execute(STEP, {}, 3)
    assert attachment.active
