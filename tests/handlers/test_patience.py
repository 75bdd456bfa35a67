"""How long a sink may go on trying."""

import threading
import time

import pytest

import handlers
from handlers.patience import HURRY, PATIENCE, Patience
from handlers.retrying import Retrying

STEP = ("training", "step")


class Stubborn:
    """A sink that tries for as long as it may."""

    delivery = "background"

    def __init__(self, site):
        self.site = site
        self.losses = handlers.Losses(site, "unreachable")
        self.attempts = 0
        self.up = threading.Event()
        self.tried = threading.Event()
        self.answers = []
        self.retrying = Retrying(
            site, "the other end", passes=lambda error: 0.0, losses=self.losses
        )

    def __call__(self, event, measurements, metadata, config):
        self.answers.append(self.retrying(self.attempt, size=1))

    def attempt(self):
        self.attempts += 1
        self.tried.set()
        if not self.up.is_set():
            raise ConnectionError("refused")


@pytest.fixture
def attach(bus, gated, monkeypatch):
    monkeypatch.setattr("gated_sinks.create", Stubborn)

    def attach(**options):
        return handlers.attach("gated", events=STEP, registry=bus, **options)

    return attach


def test_a_wait_ends_with_the_close_and_is_tried_again():
    patience = Patience()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(patience.wait(600)))
    waiting.start()
    patience.closing.set()
    waiting.join(60)
    assert answers == [True]


def test_after_the_close_waits_are_short():
    patience = Patience()
    patience.closing.set()
    assert patience.wait(600) is True  # for HURRY seconds, or this test would not end
    assert HURRY < 1


def test_nobody_waits_for_what_was_given_up():
    patience = Patience()
    patience.closing.set()
    patience.over.set()
    assert patience.wait(600) is False


def test_an_emitters_thread_has_none(bus, attach, step, monkeypatch):
    monkeypatch.setattr("handlers.retrying.FIRST", 3600.0)
    assert PATIENCE.get() is None
    attachment = attach(background=False)
    step(0)
    step(1)
    assert attachment.handler.answers == [False, False]
    assert attachment.handler.attempts == 1  # and none for as long as the back-off lasts


def test_a_place_that_comes_back_while_it_is_being_closed_gets_what_waits(attach, step, drops):
    attachment = attach(flush_timeout=30)
    for number in range(3):
        step(number)
    assert attachment.handler.tried.wait(60)
    closing = threading.Thread(target=attachment.detach)
    closing.start()
    attachment.handler.up.set()
    closing.join(60)
    assert attachment.handler.answers == [True, True, True]
    assert drops == []


def test_a_place_that_stays_down_costs_the_close_its_timeout_and_is_counted(
    attach, step, drops, ended
):
    attachment = attach(flush_timeout=0.1)
    for number in range(3):
        step(number)
    assert attachment.handler.tried.wait(60)
    attachment.detach()
    ended(attachment)
    assert sum(count for count, _ in drops) == 3
    assert attachment.handler.answers == [False]  # the others were not even tried


def test_a_flush_does_not_hurry(attach, step):
    attachment = attach(flush_timeout=0.0)
    step(0)
    assert attachment.handler.tried.wait(60)
    assert attachment.flush() is False
    attachment.handler.up.set()
    assert attachment.flush(60) is True
    assert attachment.handler.answers == [True]


def test_a_sink_that_is_detached_on_its_own_worker_does_not_try_for_ever(
    bus, attach, step, drops, ended
):
    attachment = attach(flush_timeout=0.3)
    overflow = ("telemetry", "handler", "overflow")
    bus.attach("detach", overflow, lambda *event: attachment.detach())

    fail = attachment.handler.attempt
    emitted = threading.Event()

    def attempt():
        assert emitted.wait(60)
        attachment.handler.losses.add(1, "something")  # who hears of it detaches the sink
        fail()

    attachment.handler.attempt = attempt
    for number in range(3):
        step(number)
    emitted.set()
    assert attachment.handler.tried.wait(60)
    ended(attachment)
    lost = {}
    for count, metadata in drops:
        lost[metadata["policy"]] = lost.get(metadata["policy"], 0) + count
    assert lost["drop_oldest"] == 3


def test_what_a_sink_has_kept_is_counted_when_it_gives_up_by_itself(attach, step, drops, ended):
    attachment = attach(flush_timeout=0.2)
    attachment.handler.kept = lambda: 10
    worker = attachment._worker
    deliver = worker._deliver_one

    def detach_first(*event):
        attachment.detach()  # on the worker's own thread, where nobody waits for it
        deliver(*event)

    worker._deliver_one = detach_first
    step(0)
    assert attachment.handler.tried.wait(60)
    ended(attachment)
    assert sum(count for count, _ in drops) == 11
    assert attachment.handler.answers == [False]


def test_the_time_that_was_asked_for_is_not_waited_for_if_it_is_too_late():
    gave_up = []
    patience = Patience(lambda: gave_up.append(1))
    patience.closing.set()
    patience.deadline = time.monotonic() + 600
    assert patience.wait(0.0, 700.0) is False
    assert gave_up == [1]
    assert patience.wait(600.0, 0.0) is True  # for HURRY seconds
    patience.deadline = time.monotonic()
    assert patience.wait(0.0) is False
    assert gave_up == [1, 1]
