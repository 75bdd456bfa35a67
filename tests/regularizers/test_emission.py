import dataclasses

import numpy as np
import pytest

import telemetry
from regularizers import BaseLossOutput, CustomLossOutput, RegularizerOutput, custom_loss, emit
from telemetry.events import CATALOGUE
from telemetry.testing import capture


def compiled(number=float, norm=None):
    """What compiled code would return."""
    regularizers = [
        RegularizerOutput(
            name=name,
            value=number(2.0),
            weight=0.1,
            contribution=number(0.2),
            grad_norm=norm,
            grad_norm_weighted=norm,
            custom={"mean": number(5.0)},
            asynchronous=name == "z",
        )
        for name in ("z", "a")
    ]
    return CustomLossOutput(
        loss=number(3.4),
        loss_total=number(3.4),
        base_loss=BaseLossOutput(value=number(3.0), grad_norm=norm, custom={}),
        regularizers={one.name: one for one in regularizers},
        regularizer_total=number(0.4),
        total_grad_norm=norm,
        metadata={"model_id": "m", "data_count": 3},
        reported=False,
    )


def test_each_regularizer_is_told_of_and_then_the_whole():
    with capture() as events:
        emit(compiled(norm=0.5))
    assert [e.event for e in events] == [("regularizer", "compute", "stop")] * 2 + [
        ("custom_loss", "stop")
    ]
    assert events[0].measurements == {"value": 2.0, "contribution": 0.2, "grad_norm": 0.5}
    assert events[0].metadata == {"regularizer_name": "z", "weight": 0.1, "async": True}
    assert events[1].metadata == {"regularizer_name": "a", "weight": 0.1, "async": False}
    assert events[2].measurements == {
        "loss_total": 3.4,
        "regularizer_total": 0.4,
        "total_grad_norm": 0.5,
    }
    assert events[2].metadata == {"model_id": "m", "data_count": 3}


def test_all_that_is_sent_is_in_the_catalogue():
    catalogue = {spec.name: spec for spec in CATALOGUE}
    with capture() as events:
        emit(compiled(norm=0.5))
    for event in events:
        spec = catalogue[event.event]
        assert set(event.measurements) <= {one.name for one in spec.measurements}
        assert set(event.metadata) <= {one.name for one in spec.metadata}


def test_norms_that_were_not_tracked_are_absent():
    with capture() as events:
        emit(compiled())
    assert "grad_norm" not in events[0].measurements
    assert "total_grad_norm" not in events[2].measurements


def test_a_single_output_is_not_read():
    output = compiled(np.array)
    with capture() as events:
        emit(output)
    assert isinstance(vars(output)["loss_total"], np.ndarray)
    assert all(type(v) is np.float64 for event in events for v in event.measurements.values())


def test_stacks_are_sent_step_by_step_with_pythons_numbers():
    with capture(("custom_loss", "stop")) as events:
        emit(
            compiled(lambda value: np.array([[1.0, 2.0], [3.0, 4.0]]) * value, norm=np.ones((2, 2)))
        )
    assert [e.measurements["loss_total"] for e in events] == [3.4, 6.8, 3.4 * 3, 13.6]
    assert [e.measurements["total_grad_norm"] for e in events] == [1.0] * 4
    assert all(type(value) is float for e in events for value in e.measurements.values())


def test_reading_a_stack_first_makes_no_difference():
    output = compiled(lambda value: np.array([1.0, 2.0]) * value)
    assert output.loss_total == [3.4, 6.8]
    for one in (output, dataclasses.replace(output, metadata={})):
        with capture(("custom_loss", "stop")) as events:
            emit(one)
        assert [e.measurements["loss_total"] for e in events] == [3.4, 6.8]


def test_a_stack_is_read_only_if_somebody_listens():
    reads = []

    class Watched(np.ndarray):
        def tolist(self):
            reads.append(self.shape)
            return super().tolist()

    output = compiled(lambda value: np.full(3, value).view(Watched))
    emit(output)
    assert reads == []
    with capture(("regularizer", "compute", "stop")):
        emit(output)
    assert reads


def test_an_empty_stack_sends_nothing():
    with capture() as events:
        emit(compiled(lambda value: np.zeros(0)))
    assert events == []


def test_what_was_reported_is_not_sent_again():
    output = custom_loss(None, np.ones(2), lambda data, logprobs: logprobs.sum())
    with capture() as events:
        emit(output)
    assert events == []


def test_it_is_sent_as_often_as_it_is_asked_for():
    output = compiled()
    with capture(("custom_loss", "stop")) as events:
        emit(output)
        emit(output)
    assert len(events) == 2


def test_a_handler_of_one_of_the_events_gets_it():
    seen = []
    for event in (("regularizer", "compute", "stop"), ("custom_loss", "stop")):
        with telemetry.attach("one", event, lambda name, *_: seen.append(name)):
            emit(compiled())
    assert seen == [("regularizer", "compute", "stop")] * 2 + [("custom_loss", "stop")]


def test_anything_else_is_refused():
    with pytest.raises(TypeError) as refused:
        emit(2.5)
    assert str(refused.value) == (
        "regularizers.emit takes the output of custom_loss, got 2.5 (float). "
        "Return it from the compiled function."
    )
