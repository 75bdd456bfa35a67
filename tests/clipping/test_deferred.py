"""Events that have to wait for a device: in order, without waiting, and said as they were."""

import math

import numpy as np
import pytest

import clipping
import telemetry
from clipping import deferred
from clipping.engine import clip
from clipping.groups import Leaf, arrange
from clipping.host import HOST
from clipping.records import Measured
from telemetry.testing import capture

NONFINITE = ("smartclip", "clip", "nonfinite")


class Underway:
    """A value that arrives when a test says so; who asks for it before that has waited."""

    def __init__(self, value, *, arrived=False):
        self._value = value
        self.arrived = arrived
        self.waited_for = False

    def ready(self):
        return self.arrived

    def value(self):
        self.waited_for = self.waited_for or not self.arrived
        return self._value


class Device:
    """The host's operations behind a device that is not read, and what is underway from it."""

    on_host = False

    def __init__(self):
        self.underway = []

    def __getattr__(self, name):
        return getattr(HOST, name)

    def export(self, x):
        return x

    def later(self, x):
        self.underway.append(Underway(np.array(x)))
        return self.underway[-1]


class Gradients:
    backend = "numpy"

    def __init__(self, device, clipper, norms):
        self.ops = device
        self.groups = arrange(clipper, [Leaf((1,), None, 1)] * len(norms))
        self.norms = np.array(norms)

    def measure(self, *, weights):
        return Measured(self.norms)

    def present(self):
        return None

    def rescale(self, decision):
        pass


@pytest.fixture(autouse=True)
def _nothing_underway():
    yield
    left = list(deferred._waiting)
    deferred._waiting.clear()
    assert not left, "The test left values underway."


@pytest.fixture
def clipper():
    return clipping.AutoClip(scope="per_param")


@pytest.fixture
def device():
    return Device()


def test_what_has_arrived_is_acted_on_in_order():
    heard = []
    for number in range(3):
        deferred.when_known(Underway(number, arrived=True), heard.append)
    assert heard == []
    deferred.settle()
    assert heard == [0, 1, 2]


def test_nothing_overtakes_what_has_not_arrived():
    heard, values = [], [Underway(number, arrived=number != 1) for number in range(3)]
    for value in values:
        deferred.when_known(value, heard.append)
    deferred.settle()
    assert heard == [0]
    values[1].arrived = True
    deferred.settle()
    assert heard == [0, 1, 2]
    assert not any(value.waited_for for value in values)


def test_settling_all_waits():
    heard, values = [], [Underway(number) for number in range(2)]
    for value in values:
        deferred.when_known(value, heard.append)
    deferred.settle_all()
    assert heard == [0, 1]
    assert all(value.waited_for for value in values)
    deferred.settle_all()
    assert heard == [0, 1]


def test_act_that_raises_is_heard_of_and_costs_the_others_nothing():
    heard = []

    def act(value):
        if value == 1:
            raise ValueError("of value 1")
        heard.append(value)

    for number in range(3):
        deferred.when_known(Underway(number, arrived=True), act)
    with pytest.raises(ValueError, match="of value 1"):
        deferred.settle()
    assert heard == [0]
    deferred.settle()
    assert heard == [0, 2]


def test_act_may_add_another():
    heard = []

    def act(value):
        heard.append(value)
        if value == "first":
            deferred.when_known(Underway("second", arrived=True), heard.append)

    deferred.when_known(Underway("first", arrived=True), act)
    deferred.settle()
    assert heard == ["first", "second"]


def test_clipping_waits_for_nothing_and_a_later_one_sends_the_event(device, clipper):
    with capture(NONFINITE) as events:
        clip(Gradients(device, clipper, [1.0, math.nan]), clipper)
        clip(Gradients(device, clipper, [1.0, 1.0]), clipper)
        assert events == []
        device.underway[0].arrived = device.underway[1].arrived = True
        clip(Gradients(device, clipper, [math.inf, math.inf]), clipper)
        assert [event.metadata["keys"] for event in events] == [(("param", "1"),)]
        assert not any(flags.waited_for for flags in device.underway)
        deferred.settle_all()
    assert [event.measurements["count"] for event in events] == [1, 2]
    assert events[1].metadata["keys"] == (("param", "0"), ("param", "1"))


def test_event_is_of_the_step_that_it_is_about(device, clipper):
    with capture(NONFINITE) as events:
        for step, norm in enumerate((math.nan, 1.0, math.inf)):
            with telemetry.context(run_id="r", step=step):
                clip(Gradients(device, clipper, [norm]), clipper)
        with telemetry.context(step=99, epoch=1):
            deferred.settle_all()
    assert [dict(event.metadata) for event in events] == [
        {
            "run_id": "r",
            "step": step,
            "algo": "autoclip",
            "keys": (("param", "0"),),
            "policy": "skip",
        }
        for step in (0, 2)
    ]
    assert math.isnan(events[0].measurements["grad_norm"])
    assert events[1].measurements["grad_norm"] == math.inf


def test_nothing_is_sent_for_where_nobody_listens(device, clipper):
    with capture(("smartclip", "clip", "stop")):
        clip(Gradients(device, clipper, [math.nan]), clipper)
    assert device.underway == []


def test_event_of_a_listener_who_has_left_is_sent_to_nobody(device, clipper):
    with capture(NONFINITE) as events:
        clip(Gradients(device, clipper, [math.nan]), clipper)
    deferred.settle_all()
    assert events == []


def test_handler_that_raises_does_not_reach_the_training(device, clipper, caplog):
    def broken(*_):
        raise ValueError("broken handler")

    telemetry.attach("broken", NONFINITE, broken)
    clip(Gradients(device, clipper, [math.nan]), clipper)
    deferred.settle_all()
    assert telemetry.list_handlers() == []
    assert "broken handler" in caplog.text


def test_block_that_is_left_settles_everything():
    heard, value = [], Underway(1)

    class Optimizer:
        def step(self):
            deferred.when_known(value, heard.append)

    class Parameter:
        data, grad = np.zeros(1), np.ones(1)

    class Model:
        def parameters(self):
            return [Parameter]

    optimizer = Optimizer()
    with clipping.clip_context(Model(), optimizer, clipping.AutoClip()):
        optimizer.step()
        optimizer.step()
        assert heard == []
    assert heard == [1, 1]
