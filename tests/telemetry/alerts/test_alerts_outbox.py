"""Alerts that another thread emits, and those that nobody does in time."""

import threading
from contextvars import Context

import telemetry
from telemetry import Registry, alerts
from telemetry.alerts.outbox import Outbox
from telemetry.alerts.track import Change
from telemetry.testing import capture

OVERFLOW = ("telemetry", "handler", "overflow")


def test_an_alert_that_another_thread_emits_carries_nothing_of_that_thread():
    bus, entered, release = Registry(), threading.Event(), threading.Event()

    def hear(event, measurements, metadata, config):
        entered.set()
        assert release.wait(300)

    bus.attach("hear", ("alert", "raised"), hear)

    def emit():
        with telemetry.context(run_id="of the thread", step=7):
            bus.execute(("a",), {"x": 2.0})

    with (
        capture(("alert", "*"), registry=bus) as said,
        alerts.attach([alerts.Rule("r", "*.x", above=1)], registry=bus),
    ):
        thread = threading.Thread(target=emit)
        thread.start()
        assert entered.wait(300)
        bus.execute(("b",), {"x": 2.0}, {"who": "another"})
        release.set()
        thread.join(300)
    first, second = (one.metadata for one in said)
    assert (first["run_id"], first["step"]) == ("of the thread", 7)
    assert second["who"] == "another"
    assert not {"run_id", "step"} & set(second)


def test_when_too_many_wait_the_oldest_are_dropped_and_announced(bus, said):
    outbox = Outbox(bus, "alerts", size=3)
    rule, change = alerts.Rule("r", "a.x", above=1), Change(raised=True, value=2.0, limit=1.0)
    with capture(OVERFLOW, registry=bus) as lost:
        for number in range(5):
            outbox.put(rule, change, ("a",), "x", {"number": number}, Context())
        outbox.emit()
    assert [one.metadata["number"] for one in said] == [2, 3, 4]
    assert [(one.measurements, one.metadata) for one in lost] == [
        ({"dropped": 2}, {"handler_id": "alerts", "policy": "drop_oldest"})
    ]
