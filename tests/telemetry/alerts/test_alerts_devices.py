"""Scalars on a device: judged in order, by a thread of their own, behind a bounded queue."""

import importlib
import threading

import pytest

from telemetry import Registry, alerts
from telemetry.alerts import attachment as attaching
from telemetry.alerts.deferred import Deferred
from telemetry.testing import capture

STEP = ("training", "step")
OVERFLOW = ("telemetry", "handler", "overflow")
HIGH = alerts.Rule("high", "training.loss", above=1.0)


@pytest.fixture
def remote():
    """Make tensors that say they are on an accelerator, and whose device can be kept busy."""
    torch = importlib.import_module("torch")

    class OnDevice(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        def detach(self):
            remote.readers.add(threading.current_thread())
            self.reading.set()
            assert self.ready.wait(300)
            return self.as_subclass(torch.Tensor).detach()

    def remote(value, reading=None, ready=None):
        tensor = torch.tensor(value).as_subclass(OnDevice)
        tensor.reading, tensor.ready = reading or remote.reading, ready or remote.ready
        return tensor

    remote.readers, remote.reading, remote.ready = set(), threading.Event(), threading.Event()
    remote.ready.set()
    yield remote
    remote.ready.set()


def steps(said):
    return [(one.event[1], one.metadata["step"]) for one in said]


def test_a_device_scalar_is_not_read_by_the_thread_that_emits(bus, said, remote):
    remote.ready.clear()
    with alerts.attach([HIGH], registry=bus) as attachment:
        metadata = {"step": 1}
        bus.execute(STEP, {"loss": remote(2.0)}, metadata)
        metadata["step"] = 7  # the emitter's own dictionary, which it may use again
        assert said == []
        remote.ready.set()
        assert attachment.flush(300)
        assert steps(said) == [("raised", 1)]
        assert said[0].measurements == {"value": 2.0, "limit": 1.0}
    assert threading.current_thread() not in remote.readers


def test_what_comes_behind_a_device_scalar_is_judged_after_it(bus, said, remote):
    rule = alerts.Rule("high", "training.loss", above=1.0, for_steps=2)
    remote.ready.clear()
    with alerts.attach([rule], registry=bus) as attachment:
        for step, value in enumerate([remote(2.0), 2.0, remote(0.5), 2.0, remote(2.0), 0.5]):
            bus.execute(STEP, {"loss": value}, {"step": step})
        assert said == []
        remote.ready.set()
        assert attachment.flush(300)
        assert steps(said) == [("raised", 1), ("cleared", 2), ("raised", 4), ("cleared", 5)]
        bus.execute(STEP, {"loss": 2.0}, {"step": 6})
        bus.execute(STEP, {"loss": 2.0}, {"step": 7})
        assert steps(said)[4:] == [("raised", 7)], "judged at once, now that nothing waits"


def test_what_comes_while_the_next_batch_waits_is_judged_after_that(bus, said, remote):
    reading, ready = threading.Event(), threading.Event()
    remote.ready.clear()
    with alerts.attach([HIGH], registry=bus) as attachment:
        bus.execute(STEP, {"loss": remote(2.0)}, {"step": 1})
        assert remote.reading.wait(300)
        bus.execute(STEP, {"loss": remote(3.0, reading, ready)}, {"step": 2})
        remote.ready.set()
        assert reading.wait(300)
        bus.execute(STEP, {"loss": 0.5}, {"step": 3})
        ready.set()
        assert attachment.flush(300)
    assert steps(said) == [("raised", 1), ("cleared", 3)]


def test_values_that_no_rule_is_about_are_not_touched(bus, remote):
    with alerts.attach([HIGH], registry=bus) as attachment:
        bus.execute(STEP, {"loss": 0.5, "other": remote(2.0)}, {"step": 1})
        assert attachment.flush(300)
    assert not remote.reading.is_set()


def test_when_too_many_wait_the_oldest_are_dropped_counted_and_announced():
    bus, entered, ready, done = Registry(), threading.Event(), threading.Event(), []

    def work(batch):
        entered.set()
        assert ready.wait(300)
        done.extend(batch)

    queue = Deferred(bus, "alerts", work, size=3)
    with capture(OVERFLOW, registry=bus) as lost:
        assert queue.put(0)
        assert entered.wait(300)
        for number in range(1, 8):
            assert queue.put(number)
        ready.set()
        assert queue.flush(300)
        assert done == [0, 5, 6, 7]
        queue.close(300)
    assert sum(one.measurements["dropped"] for one in lost) == 4
    assert {tuple(one.metadata.items()) for one in lost} == {
        (("handler_id", "alerts"), ("policy", "drop_oldest"))
    }
    assert not queue.put(8)


def test_an_error_on_the_thread_does_not_end_it(caplog):
    def work(batch):
        raise RuntimeError("no")

    queue = Deferred(Registry(), "alerts", work)
    for number in range(2):
        assert queue.put(number)
        assert queue.flush(300)
    queue.close(300)
    assert [record.getMessage() for record in caplog.records] == [
        "Handler 'alerts': an error on its thread: RuntimeError('no')"
    ] * 2


def test_what_waits_is_judged_when_the_rules_are_detached(bus, said, remote):
    attachment = alerts.attach([HIGH], registry=bus)
    bus.execute(STEP, {"loss": remote(2.0)}, {"step": 1})
    bus.detach("alerts")
    assert steps(said) == [("raised", 1)]
    assert not attachment.active
    bus.execute(STEP, {"loss": remote(0.5)}, {"step": 2})
    assert len(said) == 1


def test_a_device_that_hangs_holds_the_end_no_longer_than_it_may(
    bus, said, remote, monkeypatch, caplog
):
    monkeypatch.setattr(attaching, "FLUSH_TIMEOUT", 0.05)
    remote.ready.clear()
    alerts.attach([HIGH], registry=bus)
    bus.execute(STEP, {"loss": remote(2.0)}, {"step": 1})
    assert remote.reading.wait(300)
    bus.execute(STEP, {"loss": 2.0}, {"step": 2})
    with capture(OVERFLOW, registry=bus) as lost:
        bus.detach("alerts")
    assert [one.measurements["dropped"] for one in lost] == [2]
    assert said == []
    assert "Handler 'alerts': 2 events on a device were not judged within 0.05 s" in caplog.text


def test_flush_tells_when_it_was_too_early(bus, remote):
    remote.ready.clear()
    with alerts.attach([HIGH], registry=bus) as attachment:
        bus.execute(STEP, {"loss": remote(2.0)}, {"step": 1})
        assert not attachment.flush(0.01)
        remote.ready.set()
        assert attachment.flush(300)


def test_a_handler_of_an_alert_may_do_anything_on_that_thread(bus, remote):
    flushed = []

    def hear(*event):
        flushed.append(attachment.flush(300))
        attachment.detach()

    bus.attach("hear", ("alert", "raised"), hear)
    attachment = alerts.attach([HIGH], registry=bus)
    bus.execute(STEP, {"loss": remote(2.0)}, {"step": 1})
    assert attachment.flush(300)
    assert flushed == [False]
    assert not attachment.active


def test_one_that_cannot_be_judged_does_not_take_the_others_along(bus, said, remote, caplog):
    class Hostile:
        def __hash__(self):
            raise RuntimeError("no")

    remote.ready.clear()
    failure = ("telemetry", "handler", "failure")
    with (
        capture(failure, registry=bus) as failures,
        alerts.attach([HIGH], registry=bus) as attachment,
    ):
        for step, run in enumerate(["a", Hostile(), "b"]):
            bus.execute(STEP, {"loss": remote(2.0)}, {"step": step, "run_id": run})
        remote.ready.set()
        assert attachment.flush(300)
        assert attachment.active
    assert steps(said) == [("raised", 0), ("raised", 2)]
    assert [one.metadata["handler_id"] for one in failures] == ["alerts"]


def test_a_jax_value_that_is_still_being_computed_is_judged(bus, said):
    jnp = pytest.importorskip("jax.numpy")
    array = jnp.ones((600, 600))
    for _ in range(5):
        array = array @ array / 600
    with alerts.attach([HIGH], registry=bus) as attachment:
        bus.execute(STEP, {"loss": array[0, 0] + 1}, {"step": 1})
        assert attachment.flush(300)
    assert steps(said) == [("raised", 1)]
