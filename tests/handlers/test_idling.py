"""Sinks that have something to do when nothing comes."""

import threading

import pytest

import handlers

STEP = ("training", "step")


class Idler:
    """A sink that says when it was idle."""

    delivery = "background"
    idle_after = 0.01

    def __init__(self, site):
        self.log = []
        self.again = 0  # how often it wants to be asked again
        self.error = None
        self.idled = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self, event, measurements, metadata, config):
        self.log.append(metadata["step"])

    def idle(self):
        self.log.append("idle")
        error = self.error  # a test that waits for `idled` may change it at once
        self.idled.release()
        if error is not None:
            raise error
        self.again -= 1
        return self.again >= 0

    def close(self):
        self.log.append("closed")
        self.closed.set()


@pytest.fixture
def attach(bus, gated, monkeypatch):
    monkeypatch.setattr("gated_sinks.create", Idler)

    def attach(**options):
        return handlers.attach("gated", events=STEP, registry=bus, **options)

    return attach


def rest(attachment):
    """Wait until the worker is back in its queue, with nothing to wait for."""
    assert attachment.flush()


def test_a_sink_idles_once_after_each_delivery(attach, step):
    attachment = attach()
    for number in range(2):
        step(number)
        assert attachment.handler.idled.acquire(timeout=60)
    assert not attachment.handler.idled.acquire(timeout=0.2)
    attachment.detach()
    assert attachment.handler.log == [0, "idle", 1, "idle", "closed"]


def test_a_sink_that_is_not_done_is_asked_again(attach, step):
    attachment = attach()
    attachment.handler.again = 3
    step(0)
    for _ in range(4):
        assert attachment.handler.idled.acquire(timeout=60)
    assert not attachment.handler.idled.acquire(timeout=0.2)
    attachment.detach()
    assert attachment.handler.log == [0, *["idle"] * 4, "closed"]


def test_a_sink_does_not_idle_while_events_wait(attach, step):
    attachment = attach()
    attachment.handler.idle_after = 600
    for number in range(500):
        step(number)
    rest(attachment)
    assert attachment.handler.log == list(range(500))


def test_a_sink_that_waits_to_idle_is_closed_at_once(attach, step):
    attachment = attach()
    attachment.handler.idle_after = 600
    step(0)
    rest(attachment)
    attachment.detach()
    assert attachment.handler.log == [0, "closed"]


@pytest.mark.parametrize("error", [OSError("gone"), SystemExit(3)], ids=repr)
def test_a_sink_that_fails_while_idle_is_detached(bus, attach, step, error):
    attachment = attach()
    reasons = []
    bus.attach(
        "failures",
        ("telemetry", "handler", "failure"),
        lambda e, m, metadata, c: reasons.append((metadata["event_name"], metadata["reason"])),
    )
    attachment.handler.error = error
    step(0)
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert not attachment.active
    ((event, reason),) = reasons
    assert event == STEP  # the last that it had
    assert error in (reason, reason.__cause__)


def test_a_kept_sink_goes_on_after_it_failed_while_idle(attach, step):
    attachment = attach(on_failure="keep")
    attachment.handler.error = OSError("gone")
    step(0)
    assert attachment.handler.idled.acquire(timeout=60)
    attachment.handler.error = None
    step(1)
    assert attachment.handler.idled.acquire(timeout=60)
    attachment.detach()
    assert attachment.handler.log == [0, "idle", 1, "idle", "closed"]
