"""Losses inside ``tf.function``, and how their events come out."""

import inspect

import numpy as np
import pytest

import regularizers
from regularizers import (
    CustomLoss,
    RegularizerError,
    RegularizerSpec,
    custom_loss,
    penalties,
    schedules,
)
from telemetry.testing import capture
from telemetry.values import to_python

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

# By hand as in test_tensorflow.py.
DATA = tf.constant([1.0, 2.0, -3.0], tf.float64)
LOGPROBS = tf.constant([0.5, -1.0, 2.0], tf.float64)
TOTAL_GRADIENT = [-0.89, -2.12, 3.14]
SPECS = [
    RegularizerSpec(penalties.l1, 0.1, "sparsity"),
    RegularizerSpec(penalties.l2, 0.01, "decay"),
]
STOPS = ("custom_loss", "stop"), ("regularizer", "compute", "stop")


def weighted_nll(data, logprobs):
    return -tf.reduce_sum(data * logprobs), {"largest": tf.reduce_max(logprobs), "size": 3}


def compute(logprobs, **options):
    options = {"regularizers": SPECS, "track_grad_norms": True, "model_id": "m", **options}
    return custom_loss(DATA, logprobs, weighted_nll, **options)


def measured(events):
    """What was measured, without times, as Python numbers."""
    times = {"duration", "monotonic_time", "system_time"}
    return [
        (e.event, {name: to_python(e.measurements[name]) for name in e.measurements.keys() - times})
        for e in events
    ]


def approx(events):
    return [(event, pytest.approx(measurements)) for event, measurements in events]


@pytest.fixture
def eager_events():
    """By hand: the values are 7.5, 3.5 and 5.25."""
    part, whole = ("regularizer", "compute", "stop"), ("custom_loss", "stop")
    expected = [
        (part, {"value": 3.5, "contribution": 0.35, "grad_norm": np.sqrt(3)}),
        (part, {"value": 5.25, "contribution": 0.0525, "grad_norm": np.sqrt(21)}),
        (
            whole,
            {
                "loss_total": 7.9025,
                "regularizer_total": 0.4025,
                "total_grad_norm": np.sqrt(15.1461),
            },
        ),
    ]
    with capture(*STOPS) as events:
        compute(LOGPROBS)
    assert measured(events) == approx(expected)
    return approx(expected)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_the_output_can_be_returned_and_is_that_of_eager_code(jit_compile):
    output = tf.function(compute, jit_compile=jit_compile)(LOGPROBS)
    eager = compute(LOGPROBS).to_dict()
    for path, value in regularizers.trees.flatten(output.to_dict()).items():
        assert value == pytest.approx(regularizers.trees.flatten(eager)[path]), path
    assert list(output.regularizers) == ["sparsity", "decay"]
    assert output.base_loss.custom == {"largest": 2.0, "size": 3}
    assert (output.metadata, output.reported) == (
        {"model_id": "m", "data_count": 3, "regularizer_count": 2, "track_grad_norms": True},
        False,
    )


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_the_loss_differentiates_to_the_gradient_of_the_total(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def step(logprobs):
        with tf.GradientTape() as tape:
            tape.watch(logprobs)
            output = compute(logprobs)
        return tape.gradient(output.loss, logprobs)

    np.testing.assert_allclose(step(LOGPROBS), TOTAL_GRADIENT)


def test_a_tape_around_the_graph_differentiates_the_loss_and_nothing_else():
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(LOGPROBS)
        output = tf.function(compute)(LOGPROBS)
    np.testing.assert_allclose(tape.gradient(output.loss, LOGPROBS), TOTAL_GRADIENT)
    held = vars(output) | vars(output.base_loss)
    for name in ("total_grad_norm", "grad_norm", "loss_total", "value"):
        slope = tape.gradient(held[name], LOGPROBS)
        assert slope is None or not np.any(slope), name


def test_nothing_is_emitted_when_the_graph_is_traced_and_emit_sends_it_once_it_has_run(
    eager_events,
):
    step = tf.function(compute)
    with capture() as events:
        outputs = [step(LOGPROBS), step(LOGPROBS)]
    assert events == []
    for output in outputs:
        with capture(*STOPS) as events:
            regularizers.emit(output)
        assert measured(events) == eager_events
        assert [e.metadata.get("model_id") for e in events] == [None, None, "m"]


def test_live_the_graph_sends_its_events_each_time_it_runs(eager_events):
    step = tf.function(lambda logprobs: compute(logprobs, live=True).loss)
    with capture(*STOPS) as events:
        step.get_concrete_function(LOGPROBS)
    assert events == []
    for _ in range(2):
        with capture(*STOPS) as events:
            loss = step(LOGPROBS)
        assert float(loss) == pytest.approx(7.9025)
        assert measured(events) == eager_events


def test_live_in_the_callers_tape_the_loss_can_be_differentiated():
    @tf.function
    def step(logprobs):
        with tf.GradientTape() as tape:
            tape.watch(logprobs)
            output = compute(logprobs, live=True)
        return output, tape.gradient(output.loss, logprobs)

    with capture(*STOPS) as events:
        output, gradient = step(LOGPROBS)
        regularizers.emit(output)
    assert len(events) == 3
    np.testing.assert_allclose(gradient, TOTAL_GRADIENT)


def test_xla_refuses_a_graph_that_is_live():
    step = tf.function(lambda logprobs: compute(logprobs, live=True).loss, jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        step(LOGPROBS)


def test_functions_are_called_once_for_each_graph():
    calls = []

    def base(data, logprobs):
        calls.append(logprobs.shape)
        return -tf.reduce_sum(logprobs)

    @tf.function
    def step(logprobs):
        return custom_loss(None, logprobs, base, regularizers=SPECS, track_grad_norms=True)

    norms = [float(step(tf.ones(n)).base_loss.grad_norm) for n in (4, 4, 9, 4)]
    assert norms == [2.0, 2.0, 3.0, 2.0]
    assert calls == [(4,), (9,)]


def test_a_batch_of_any_length_needs_one_graph():
    step = tf.function(
        lambda x: custom_loss(x, x, penalties.l2, regularizers=SPECS, track_grad_norms=True),
        input_signature=[tf.TensorSpec([None], tf.float32)],
    )
    norms = [step(tf.ones(n)).base_loss.grad_norm for n in (1, 4, 9)]
    assert norms == [2.0, 4.0, 6.0]
    assert step.experimental_get_tracing_count() == 1


def test_gradients_by_variables_in_a_graph():
    """By hand: l1 of w x with x = (1, -1) has the slope (1, 1) by w = (2, 3), l2 has (4, 6)."""
    w = tf.Variable([2.0, 3.0])

    @tf.function
    def step(x):
        spec = RegularizerSpec(penalties.l2, 0.5, "decay")
        return custom_loss(
            None,
            lambda variables: variables[0] * x,
            penalties.l1,
            regularizers=[spec],
            wrt=[w],
            track_grad_norms=True,
        )

    output = step(tf.constant([1.0, -1.0]))
    assert output.base_loss.grad_norm == pytest.approx(np.sqrt(2))
    assert output.regularizers["decay"].grad_norm == pytest.approx(np.sqrt(52))
    assert output.total_grad_norm == pytest.approx(5.0)


def test_gradients_of_a_lookup_in_a_graph():
    """By hand: rows 0, 0, 2 of a table; the gradients of the sum are (2, 2), (0, 0), (1, 1)."""
    table = tf.Variable(tf.ones((3, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def step(ids):
        return custom_loss(
            None, lambda v: tf.gather(v, ids), penalties.l1, wrt=table, track_grad_norms=True
        )

    assert step(tf.constant([0, 0, 2])).base_loss.grad_norm == pytest.approx(np.sqrt(10))


def test_a_weight_that_is_a_schedule_follows_the_step_in_the_graph():
    spec = RegularizerSpec(penalties.l1, schedules.linear_warmup(0.2, steps=2), "sparsity")
    loss = CustomLoss(weighted_nll, [spec])
    step = tf.function(lambda number: loss(DATA, LOGPROBS, step=number))
    outputs = [step(tf.constant(number)) for number in range(4)]
    weights = [output.regularizers["sparsity"].weight for output in outputs]
    assert weights == pytest.approx([0.0, 0.1, 0.2, 0.2])
    assert step.experimental_get_tracing_count() == 1
    with capture(STOPS[1]) as events:
        regularizers.emit(outputs[1])
    assert to_python(events[0].metadata["weight"]) == pytest.approx(0.1)


def test_autograph_leaves_the_runner_as_it_is():
    translated = []

    def base(data, logprobs):
        names = (frame.function for frame in inspect.stack())
        translated.append([name for name in names if name.startswith("tf__")])
        return weighted_nll(data, logprobs)

    loss = CustomLoss(base, SPECS)

    @tf.function(autograph=True)
    def step(logprobs):
        if tf.reduce_sum(logprobs) > 0:  # what autograph is there for goes on working beside it
            logprobs = logprobs * 1.0
        outputs = [
            custom_loss(DATA, logprobs, base, regularizers=SPECS),
            loss(DATA, logprobs),
            loss.once(DATA, logprobs),
        ]
        return outputs[0].loss + outputs[1].loss + outputs[2].loss

    assert float(step(LOGPROBS)) == pytest.approx(3 * 7.9025)
    assert translated == [["tf__step"]] * 3


def test_a_function_that_is_a_graph_of_its_own_can_branch_on_tensors():
    @tf.function
    def hinge(data, logprobs):
        total = tf.reduce_sum(logprobs)
        if total > 1:
            return total - 1
        return tf.zeros_like(total)

    spec = RegularizerSpec(hinge, 1.0, "hinge")
    output = tf.function(compute)(LOGPROBS, regularizers=[spec])
    assert output.regularizers["hinge"].value == 0.5
    assert output.regularizers["hinge"].grad_norm == pytest.approx(np.sqrt(3))


def test_the_loss_goes_where_the_output_cannot():
    """By hand: sum(x) + 0.5 * sum(x**2) of (1, 2) and (2, 4) is 5.5 and 16."""
    spec = RegularizerSpec(penalties.l2, 0.5, "decay")
    loss = CustomLoss(lambda d, x: tf.reduce_sum(x), [spec], track_grad_norms=True)
    members = tf.constant([[1.0, 2.0], [2.0, 4.0]])

    @tf.function
    def in_a_loop(members):
        total = tf.constant(0.0)
        for x in members:
            total += loss(None, x).loss
        return total

    assert float(in_a_loop(members)) == 21.5
    assert tf.vectorized_map(lambda x: loss(None, x).loss, members).numpy().tolist() == [5.5, 16.0]


def test_failures_are_found_when_the_graph_is_traced():
    stopped = RegularizerSpec(lambda d, x: tf.reduce_sum(tf.stop_gradient(x)), 1.0, "stopped")
    with pytest.raises(RegularizerError, match="Regularizer 'stopped' failed: ValueError"):
        tf.function(compute)(LOGPROBS, regularizers=[stopped])


def test_emit_in_the_graph_says_where_it_belongs():
    @tf.function
    def step(logprobs):
        regularizers.emit(compute(logprobs))

    with pytest.raises(TypeError, match="that tensorflow is still tracing, which has no numbers"):
        step(LOGPROBS)


def test_the_measurements_of_a_single_output_are_not_read(eager_events):
    output = tf.function(compute)(LOGPROBS)
    with capture(*STOPS) as events:
        regularizers.emit(output)
    assert all(tf.is_tensor(e.measurements["grad_norm"]) for e in events[:2])
    assert measured(events) == eager_events


def test_a_finished_output_can_be_emitted_in_a_graph_and_has_its_numbers(eager_events):
    output = tf.function(compute)(LOGPROBS)

    @tf.function
    def inside(x):
        regularizers.emit(output)
        return x

    with capture(*STOPS) as events:
        inside(LOGPROBS)
    assert measured(events) == eager_events


def test_an_output_that_was_smuggled_out_of_a_graph_is_refused():
    kept = []

    @tf.function
    def step(logprobs):
        kept.append(compute(logprobs))
        return logprobs

    step(LOGPROBS)
    with pytest.raises(TypeError, match="which has no numbers"):
        regularizers.emit(kept[0])


@pytest.mark.parametrize("tracked", [False, True])
def test_autograph_can_choose_between_two_outputs(tracked):
    @tf.function
    def step(x):
        if tf.reduce_sum(x) > 0:
            output = compute(x, track_grad_norms=tracked)
        else:
            output = compute(-x, track_grad_norms=tracked)
        return output

    expected = compute(LOGPROBS, track_grad_norms=tracked)
    for x in (LOGPROBS, -LOGPROBS):
        output = step(x)
        assert output.loss_total == pytest.approx(7.9025)
        assert output.to_dict().keys() == expected.to_dict().keys()
        assert not output.reported


def test_the_output_is_a_structure_that_can_be_mapped_over():
    output = tf.nest.map_structure(
        lambda leaf: None if leaf is None else 2 * leaf, compute(LOGPROBS)
    )
    assert output.loss_total == pytest.approx(2 * 7.9025)
    assert output.regularizers["decay"].contribution == pytest.approx(2 * 0.0525)
