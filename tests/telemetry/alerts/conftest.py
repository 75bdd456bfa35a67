import pytest

from telemetry import Registry, alerts
from telemetry.testing import capture

STEP = ("training", "step")


class Clock:
    """Seconds, as a test says."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bus():
    """A bus of its own; what is still attached at the end is detached."""
    registry = Registry()
    yield registry
    for info in registry.list_handlers():
        registry.detach(info.id, missing_ok=True)


@pytest.fixture
def said(bus):
    """The alerts on the bus."""
    with capture(("alert", "*"), registry=bus) as events:
        yield events


@pytest.fixture
def judge(bus, clock):
    """Feed a series to one rule: at which values, counted from 0, it was raised and cleared."""

    def judge(values, every=0.0, **rule):
        made = alerts.Rule("rule", "training.step.loss", **rule)
        changes = []
        with (
            alerts.attach([made], registry=bus, clock=clock),
            capture(("alert", "*"), registry=bus) as events,
        ):
            for index, value in enumerate(values):
                bus.execute(STEP, {"loss": value}, {"step": index})
                clock.now += every
                changes += [(event.event[1], index) for event in events[len(changes) :]]
        assert [event.metadata["step"] for event in events] == [index for _, index in changes]
        return changes

    return judge
