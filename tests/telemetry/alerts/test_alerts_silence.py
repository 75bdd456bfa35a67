"""Rules on silence."""

import threading
import time
from contextvars import Context
from math import inf

import pytest

from telemetry import Registry, alerts
from telemetry.alerts.outbox import Outbox
from telemetry.alerts.silence import Silence
from telemetry.alerts.track import Change
from telemetry.alerts.watcher import Watcher
from telemetry.testing import capture

STEP = ("training", "step")
START, STOP = ("workflow", "run", "start"), ("workflow", "run", "stop")
EXCEPTION = ("workflow", "run", "exception")


@pytest.fixture
def watch(bus, clock, monkeypatch):
    """A rule on silence whose looks are the test's, not a thread's."""
    monkeypatch.setattr(Silence, "start", lambda self: None)

    def watch(**more):
        rule = alerts.Rule("silent", "training.step", **{"stalled": 60, **more})
        watcher = Watcher([rule], bus, "alerts", clock)
        bus.attach_many("alerts", watcher.patterns, watcher)

        def after(seconds):
            clock.now += seconds
            watcher.silence.look()

        return after

    return watch


def changes(said, *keys):
    return [(one.event[1], *(one.metadata.get(key) for key in keys)) for one in said]


def test_silence_is_counted_from_attach(watch, said):
    after = watch()
    after(59)
    assert said == []
    after(1)
    assert changes(said) == [("raised",)]
    assert said[0].measurements == {"value": 60.0, "limit": 60}
    assert said[0].metadata == {
        "rule": "silent",
        "severity": "critical",
        "metric": "training.step",
        "message": "no training.step for 60 s.",
    }
    after(600)
    assert len(said) == 1


def test_silence_is_counted_from_the_last_event_and_ended_by_the_next(watch, said, bus):
    after = watch()
    for step in range(3):
        after(50)
        bus.execute(STEP, {"loss": 1.0}, {"step": step, "run_id": "a"})
    after(61)
    assert changes(said, "step", "run_id") == [("raised", 2, "a")]
    bus.execute(STEP, {"loss": 1.0}, {"step": 3, "run_id": "a"})
    assert changes(said, "step", "run_id") == [("raised", 2, "a"), ("cleared", 3, "a")]
    assert said[1].measurements == {"value": 61.0, "limit": 60}
    assert said[1].metadata["message"] == "training.step has come again, after 61 s."
    after(59)
    assert len(said) == 2
    after(1)
    assert changes(said, "step") == [("raised", 2), ("cleared", 3), ("raised", 3)]


@pytest.mark.parametrize("end", [STOP, EXCEPTION])
def test_a_run_that_has_ended_is_silent(watch, said, bus, end):
    after = watch()
    bus.execute(START, {}, {"run_id": "a"})
    bus.execute(STEP, {}, {"run_id": "a"})
    bus.execute(end, {}, {"run_id": "a"})
    after(1000)
    assert said == []


def test_a_run_that_has_ended_while_it_was_silent_is_over(watch, said, bus):
    after = watch()
    bus.execute(STEP, {}, {"run_id": "a"})
    after(60)
    bus.execute(STOP, {}, {"run_id": "a"})
    assert changes(said, "run_id") == [("raised", "a"), ("cleared", "a")]
    after(1000)
    assert len(said) == 2


def test_silence_is_counted_from_the_start_of_a_run(watch, said, bus):
    after = watch()
    after(50)
    bus.execute(START, {}, {"run_id": "a"})
    after(50)
    assert said == []
    after(10)
    assert changes(said, "run_id") == [("raised", "a")]


def test_runs_are_told_apart(watch, said, bus):
    after = watch()
    bus.execute(STEP, {}, {"run_id": "a"})
    bus.execute(STEP, {}, {"run_id": "b"})
    after(40)
    bus.execute(STEP, {}, {"run_id": "b"})
    after(40)
    assert changes(said, "run_id") == [("raised", "a")]
    after(20)
    assert changes(said, "run_id") == [("raised", "a"), ("raised", "b")]


def test_only_events_and_runs_that_are_asked_for_count(watch, said, bus):
    after = watch(where={"run_id": "a"})
    bus.execute(STEP, {}, {"run_id": "b"})
    bus.execute(START, {}, {"run_id": "b"})
    after(59)
    bus.execute(STEP, {}, {"run_id": "b"})
    after(1)
    assert changes(said, "run_id") == [("raised", None)]
    bus.execute(STEP, {}, {"run_id": "a"})
    assert changes(said, "run_id") == [("raised", None), ("cleared", None)]


def test_a_rule_on_one_run_goes_on_when_another_ends(watch, said, bus):
    after = watch(where={"run_id": "a"})
    bus.execute(START, {}, {"run_id": "b"})
    bus.execute(STOP, {}, {"run_id": "b"})
    after(60)
    assert changes(said) == [("raised",)]


def test_the_start_and_the_end_of_a_run_need_not_know_its_rank(watch, said, bus):
    after = watch()
    bus.execute(START, {}, {"run_id": "a"})
    for step in range(4):
        after(20)
        bus.execute(STEP, {}, {"run_id": "a", "rank": 0, "step": step})
    assert said == []
    after(60)
    bus.execute(STOP, {}, {"run_id": "a"})
    after(1000)
    assert changes(said, "run_id", "rank") == [("raised", "a", 0), ("cleared", "a", 0)]


def test_a_silence_that_was_of_no_rank_is_over_for_no_rank(watch, said, bus):
    after = watch()
    bus.execute(START, {}, {"run_id": "a"})
    after(60)
    bus.execute(STEP, {}, {"run_id": "a", "rank": 0, "step": 1})
    assert changes(said, "run_id", "rank", "step") == [
        ("raised", "a", None, None),
        ("cleared", "a", None, 1),
    ]


def test_an_event_that_comes_while_the_thread_looks_is_heard(clock):
    """Just between the look at when it was heard last, and the alert."""
    found = []
    silence = Silence([alerts.Rule("s", "training.step", stalled=60)], clock, found.extend)
    (watched,) = silence.watched

    class Rule:
        @property
        def cooldown(self):
            clock.now = 61.0
            silence.heard(watched, {"run_id": "a"})
            return 0.0

    silence.heard(watched, {"run_id": "a"})
    clock.now, watched.rule = 60.0, Rule()
    silence.look()
    assert found == []
    assert not watched.last.raised


def test_a_look_that_fails_does_not_end_the_thread(bus, caplog):
    raised, looks = threading.Event(), []

    def found(alerts_found):
        looks.append(alerts_found)
        if len(looks) == 1:
            raise RuntimeError("no")
        raised.set()

    rules = [alerts.Rule("first", "my.x", stalled=0.01), alerts.Rule("second", "my.x", stalled=0.5)]
    silence = Silence(rules, time.monotonic, found)
    silence.start()
    assert raised.wait(300)
    silence.close()
    assert "an error on their thread: RuntimeError('no')" in caplog.text


def test_silence_can_have_a_cooldown(watch, said, bus):
    after = watch(cooldown=300)
    bus.execute(STEP, {}, {})
    after(60)
    bus.execute(STEP, {}, {})
    after(299)
    assert changes(said) == [("raised",), ("cleared",)]
    after(1)
    assert changes(said) == [("raised",), ("cleared",), ("raised",)]


def test_runs_that_never_end_do_not_grow(bus, clock):
    silence = Silence([alerts.Rule("s", "training.step", stalled=60)], clock, print)
    (watched,) = silence.watched
    for run in range(5000):
        silence.heard(watched, {"run_id": run})
    silence.heard(watched, {"run_id": [1]})
    assert len(watched.runs) == 4096
    silence.close()


def test_a_thread_looks_by_itself_and_ends_with_the_rules(bus):
    raised, cleared = threading.Event(), threading.Event()
    bus.attach("raised", ("alert", "raised"), lambda *_: raised.set())
    bus.attach("cleared", ("alert", "cleared"), lambda *_: cleared.set())
    rule = alerts.Rule("silent", "training.step", stalled=0.02)
    with alerts.attach([rule], registry=bus) as attachment:
        assert raised.wait(300)
        raised.clear()
        bus.execute(STEP, {}, {"run_id": "a"})
        assert cleared.wait(300)
        assert raised.wait(300), "and again, after the event"
        thread = attachment._watcher.silence._thread
        assert thread.is_alive()
    thread.join(300)
    assert not thread.is_alive()


def test_a_nearer_deadline_wakes_the_thread(bus):
    raised = threading.Event()
    bus.attach("raised", ("alert", "raised"), lambda *_: raised.set())
    rules = [
        alerts.Rule("long", "training.step", stalled=3600),
        alerts.Rule("short", "my.event", stalled=0.02, where={"run_id": "a"}),
    ]
    with alerts.attach(rules, registry=bus):
        assert raised.wait(300)
        raised.clear()
        bus.execute(("my", "event"), {}, {"run_id": "a"})
        assert raised.wait(300)


def test_rules_on_values_alone_start_no_thread(bus):
    with alerts.attach([alerts.Rule("r", "training.loss", above=1)], registry=bus) as attachment:
        bus.execute(STEP, {"loss": 2.0})
        assert attachment._watcher.silence._thread is None
        assert attachment._watcher.silence._next_look == inf
        assert attachment._watcher.deferred._thread is None


def test_alerts_come_in_order_whoever_finds_them():
    """One found while another is being heard waits until that was heard by all."""
    bus = Registry()
    order = []

    def hear(event, measurements, metadata, config):
        order.append(metadata["rule"])
        if metadata["rule"] == "first":
            bus.execute(("b",), {"x": 2.0})
            order.append("first was heard")

    bus.attach("hear", ("alert", "raised"), hear)
    rules = [alerts.Rule("first", "a.x", above=1), alerts.Rule("second", "b.x", above=1)]
    with alerts.attach(rules, registry=bus):
        bus.execute(("a",), {"x": 2.0})
    assert order == ["first", "first was heard", "second"]


def test_an_alert_that_comes_just_before_the_one_that_emits_has_ended_is_not_left_behind(bus, said):
    outbox = Outbox(bus, "alerts")
    rule, change = alerts.Rule("r", "a.x", above=1), Change(raised=True, value=2.0, limit=1.0)

    class Lock:
        def __init__(self):
            self.taken = False

        def acquire(self, *, blocking):
            before, self.taken = self.taken, True
            return not before

        def release(self):
            if len(said) == 1:  # another thread has found one, and the lock taken
                outbox.put(rule, change, ("a",), "x", {"number": 2}, Context())
                outbox.emit()
            self.taken = False

    outbox._emitting = Lock()
    outbox.put(rule, change, ("a",), "x", {"number": 1}, Context())
    outbox.emit()
    assert changes(said, "number") == [("raised", 1), ("raised", 2)]


def test_alerts_found_by_another_thread_are_left_to_the_one_that_emits():
    bus, entered, release = Registry(), threading.Event(), threading.Event()

    def hear(event, measurements, metadata, config):
        entered.set()
        assert release.wait(300)

    bus.attach("hear", ("alert", "raised"), hear)
    with (
        capture(("alert", "*"), registry=bus) as said,
        alerts.attach([alerts.Rule("r", "a.x", above=1)], registry=bus) as attachment,
    ):
        thread = threading.Thread(target=bus.execute, args=(("a",), {"x": 2.0}, {"run_id": "a"}))
        thread.start()
        assert entered.wait(300)
        bus.execute(("a",), {"x": 2.0}, {"run_id": "b"})
        assert [one.metadata["run_id"] for one in said] == []
        release.set()
        thread.join(300)
        assert [one.metadata["run_id"] for one in said] == ["a", "b"]
        assert isinstance(attachment._watcher._outbox, Outbox)
