import pytest
import torch

import telemetry
from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

PLACE = "telemetry_span_context"


def total(data, logprobs):
    return sum(logprobs)  # TensorFlow's tensors have no .sum()


def total_grad(data, logprobs):
    return logprobs * 0 + 1


def boom(data, logprobs):
    raise KeyError("mask")


def interrupt(data, logprobs):
    raise KeyboardInterrupt


SPECS = [
    RegularizerSpec(penalties.l1, 0.1, "sparsity"),
    RegularizerSpec(penalties.l2, 0.01, "decay"),
]


def names(events):
    return [".".join(e.event) for e in events]


def without_times(measurements):
    times = {"duration", "monotonic_time", "system_time"}
    assert all(type(measurements[name]) is int for name in times & measurements.keys())
    return {name: value for name, value in measurements.items() if name not in times}


def without_place(metadata):
    return {key: value for key, value in metadata.items() if key != PLACE}


def to_python(mapping):
    return {name: telemetry.values.to_python(value) for name, value in mapping.items()}


def call(framework, **options):
    logprobs = framework.tensor([3.0, -4.0])
    options = {"regularizers": SPECS, "base_grad_fn": total_grad, "model_id": "m", **options}
    return custom_loss([1, 2, 3], logprobs, total, **options)


def test_events_come_in_order(framework):
    with capture() as events:
        call(framework)
    assert names(events) == [
        "custom_loss.start",
        "regularizer.compute.start",
        "regularizer.compute.stop",
        "regularizer.compute.start",
        "regularizer.compute.stop",
        "custom_loss.stop",
    ]


@pytest.mark.parametrize("track", [False, True])
def test_metadata_are_those_of_the_catalogue(framework, track):
    with capture() as events:
        call(framework, track_grad_norms=track)
    outer = {
        "model_id": "m",
        "data_count": 3,
        "regularizer_count": 2,
        "track_grad_norms": track,
    }
    first = {"regularizer_name": "sparsity", "weight": 0.1, "async": False}
    second = {"regularizer_name": "decay", "weight": 0.01, "async": False}
    metadata = [without_place(e.metadata) for e in events]
    assert metadata == [outer, first, first, second, second, outer]


def test_measurements_are_those_of_the_catalogue(framework):
    """By hand: l1 = 7, l2 = 25, base = -1, total = -1 + 0.7 + 0.25."""
    with capture() as events:
        call(framework)
    measurements = [without_times(e.measurements) for e in events]
    assert [set(m) for m in measurements] == [
        set(),
        set(),
        {"value", "contribution"},
        set(),
        {"value", "contribution"},
        {"loss_total", "regularizer_total"},
    ]
    assert to_python(measurements[2]) == pytest.approx({"value": 7.0, "contribution": 0.7})
    assert to_python(measurements[4]) == pytest.approx({"value": 25.0, "contribution": 0.25})
    assert to_python(measurements[5]) == pytest.approx(
        {"loss_total": -0.05, "regularizer_total": 0.95}
    )
    assert {"duration", "monotonic_time"} <= events[5].measurements.keys()


def test_gradient_norms_are_measured_when_tracked(framework):
    """By hand: (1, -1) and (6, -8); total (1, 1) + (0.1, -0.1) + (0.06, -0.08)."""
    with capture(("**",)) as events:
        call(framework, track_grad_norms=True)
    first, second, last = (
        to_python(without_times(events[index].measurements)) for index in (2, 4, 5)
    )
    assert first == pytest.approx({"value": 7.0, "contribution": 0.7, "grad_norm": 2**0.5})
    assert second == pytest.approx({"value": 25.0, "contribution": 0.25, "grad_norm": 10.0})
    assert last == pytest.approx(
        {
            "loss_total": -0.05,
            "regularizer_total": 0.95,
            "total_grad_norm": (1.16**2 + 0.82**2) ** 0.5,
        }
    )


def test_measurements_are_tensors_that_keep_no_graph():
    x = torch.ones(2, requires_grad=True)
    with capture(("**",)) as events:
        custom_loss(None, x, total, regularizers=SPECS, track_grad_norms=True)
    values = [value for event in events for value in without_times(event.measurements).values()]
    assert len(values) == 9
    assert all(isinstance(v, torch.Tensor) and v.shape == () for v in values)
    assert not any(v.requires_grad for v in values)


def test_spans_are_nested(framework):
    with capture() as events:
        call(framework)
    outer = events[0].metadata[PLACE]
    inner = [e.metadata[PLACE] for e in events[1:-1]]
    assert events[-1].metadata[PLACE] == outer
    assert outer.parent_id is None
    assert {place.parent_id for place in inner} == {outer.span_id}
    assert inner[0] == inner[1] != inner[2] == inner[3]


def test_ambient_context_is_on_every_event(framework):
    with capture() as events, telemetry.context(step=7):
        call(framework)
    assert [e.metadata["step"] for e in events] == [7] * 6


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ([1, 2], 2),
        (torch.ones(5, 2), 5),
        (torch.ones(()), None),
        (iter([1]), None),
        (None, None),
        ({"inputs": 1}, 1),
    ],
    ids=["list", "tensor", "0-d tensor", "iterator", "nothing", "mapping"],
)
def test_data_count_is_the_length_of_the_data(data, count):
    with capture(("custom_loss", "start")) as events:
        custom_loss(data, [1.0], lambda data, logprobs: 1.0)
    assert events[0].metadata["data_count"] == count


def test_a_failing_regularizer_fails_its_span_and_the_outer_one_and_the_others_finish(framework):
    specs = [RegularizerSpec(boom, 1.0, "boom"), *SPECS]
    with capture() as events, pytest.raises(RegularizerError) as caught:
        call(framework, regularizers=specs)
    assert names(events) == [
        "custom_loss.start",
        "regularizer.compute.start",
        "regularizer.compute.exception",
        "regularizer.compute.start",
        "regularizer.compute.stop",
        "regularizer.compute.start",
        "regularizer.compute.stop",
        "custom_loss.exception",
    ]
    inner, outer = events[2].metadata, events[-1].metadata
    assert (inner["regularizer_name"], inner["kind"]) == ("boom", "error")
    assert inner["reason"] is caught.value.__cause__
    assert (outer["kind"], outer["reason"]) == ("error", caught.value)


def test_a_failing_base_loss_fails_the_outer_span_and_nothing_else_runs(framework):
    with capture() as events, pytest.raises(KeyError) as caught:
        custom_loss([], framework.tensor([1.0]), boom, regularizers=SPECS)
    assert names(events) == ["custom_loss.start", "custom_loss.exception"]
    assert events[-1].metadata["reason"] is caught.value


def test_an_interrupt_passes_and_ends_both_spans(framework):
    specs = [RegularizerSpec(interrupt, 1.0, "interrupt"), *SPECS]
    with capture() as events, pytest.raises(KeyboardInterrupt):
        call(framework, regularizers=specs)
    assert names(events) == [
        "custom_loss.start",
        "regularizer.compute.start",
        "regularizer.compute.exception",
        "custom_loss.exception",
    ]
    assert [e.metadata["kind"] for e in events[2:]] == ["exit", "exit"]


def test_what_is_refused_at_the_call_emits_nothing(framework):
    with capture() as events, pytest.raises(ValueError, match="two regularizers"):
        call(framework, regularizers=[*SPECS, *SPECS])
    assert events == []
