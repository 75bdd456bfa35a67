"""Losses on TensorFlow in eager code; graphs are in test_tensorflow_graph.py."""

import asyncio
import math
import threading

import numpy as np
import pytest

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

# By hand, for base = -sum(d * x), l1 = sum|x| with weight 0.1, l2 = sum(x**2) with weight 0.01:
# the gradients are (-1, -2, 3), (1, -1, 1) and (1, -2, 4), the total's is below.
DATA = tf.constant([1.0, 2.0, -3.0], tf.float64)
LOGPROBS = tf.constant([0.5, -1.0, 2.0], tf.float64)
TOTAL_GRADIENT = [-0.89, -2.12, 3.14]
SPECS = [
    RegularizerSpec(penalties.l1, 0.1, "sparsity"),
    RegularizerSpec(penalties.l2, 0.01, "decay"),
]


def weighted_nll(data, logprobs):
    return -tf.reduce_sum(data * logprobs)


def tracked(logprobs=LOGPROBS, base=weighted_nll, specs=SPECS, **options):
    return custom_loss(DATA, logprobs, base, regularizers=specs, track_grad_norms=True, **options)


def norms(output):
    parts = [output.base_loss, *output.regularizers.values()]
    return [part.grad_norm for part in parts] + [output.total_grad_norm]


def gradient_of(function):
    return tracked(specs=[RegularizerSpec(function, 1.0, "it")]).regularizers["it"].grad_norm


CLOSED_FORMS = np.sqrt([14, 3, 21, 15.1461])


def test_norms_are_the_closed_forms():
    assert norms(tracked()) == pytest.approx(CLOSED_FORMS)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("track", [False, True])
def test_the_loss_differentiates_to_the_gradient_of_the_total(track, persistent):
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(LOGPROBS)
        output = custom_loss(
            DATA, LOGPROBS, weighted_nll, regularizers=SPECS, track_grad_norms=track
        )
    for _ in range(1 + persistent):
        np.testing.assert_allclose(tape.gradient(output.loss, LOGPROBS), TOTAL_GRADIENT)


def test_norms_in_the_callers_tape_are_the_closed_forms_and_no_part_of_it():
    weight = tf.Variable(2.0, dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        output = tracked(weight * LOGPROBS / 2)
    assert tape.gradient(vars(output)["total_grad_norm"], weight) is None
    assert norms(output) == pytest.approx(CLOSED_FORMS)
    # d/dw of the loss on w x / 2 is the total's gradient times x / 2.
    assert float(tape.gradient(output.loss, weight)) == pytest.approx(
        np.dot(TOTAL_GRADIENT, LOGPROBS) / 2
    )


def test_second_derivatives_in_the_callers_tapes_are_right():
    """By hand: of sum(x**2) the gradient is 2x, whose sum has the gradient 2."""
    with tf.GradientTape() as outer:
        outer.watch(LOGPROBS)
        with tf.GradientTape() as inner:
            inner.watch(LOGPROBS)
            output = tracked(base=penalties.l2, specs=())
        slope = inner.gradient(output.loss, LOGPROBS)
    np.testing.assert_allclose(outer.gradient(slope, LOGPROBS), [2.0, 2.0, 2.0])


def test_norms_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(4, 3)))
    w, b = (tf.Variable(rng.normal(size=shape)) for shape in [(3, 5), (5,)])
    specs = [RegularizerSpec(penalties.entropy, 0.3, "entropy")]

    def logprobs(variables):
        return tf.nn.log_softmax(tf.tanh(x) @ variables[0] + variables[1])

    def nll(data, logprobs):
        return -tf.reduce_mean(logprobs[:, 0]) + 0.1 * tf.reduce_sum(w**2)

    def evaluate():
        output = tracked(logprobs, nll, specs, wrt=[w, b])
        entropy = output.regularizers["entropy"]
        return output, [output.base_loss.value, entropy.value, output.loss_total]

    slopes, h = [], 1e-6
    for variable in (w, b):
        for index in np.ndindex(*variable.shape):
            step = np.zeros(variable.shape)
            step[index] = h
            variable.assign_add(step)
            above = evaluate()[1]
            variable.assign_sub(2 * step)
            below = evaluate()[1]
            variable.assign_add(step)
            slopes.append(np.subtract(above, below) / (2 * h))
    expected = np.linalg.norm(slopes, axis=0)
    assert norms(evaluate()[0]) == pytest.approx(expected, rel=1e-6)


def test_a_loss_function_that_is_a_graph_is_differentiated_on_both_tapes():
    @tf.function
    def base(data, logprobs):
        return weighted_nll(data, logprobs)

    with tf.GradientTape() as tape:
        tape.watch(LOGPROBS)
        output = tracked(base=base)
    assert norms(output) == pytest.approx(CLOSED_FORMS)
    np.testing.assert_allclose(tape.gradient(output.loss, LOGPROBS), TOTAL_GRADIENT)


def test_events_measure_tensors_and_read_nothing():
    with capture(("custom_loss", "stop"), ("regularizer", "compute", "stop")) as events:
        tracked()
    assert [event.metadata.get("regularizer_name") for event in events] == [
        "sparsity",
        "decay",
        None,
    ]
    assert events[2].metadata["data_count"] == 3
    measured = {name: value for e in events for name, value in e.measurements.items()}
    for name in ("value", "contribution", "grad_norm", "loss_total", "total_grad_norm"):
        assert isinstance(measured[name], tf.Tensor)
    assert float(events[2].measurements["loss_total"]) == pytest.approx(7.9025)


def test_asynchronous_regularizers_are_differentiated_in_the_callers_thread():
    threads = []

    async def slow(data, logprobs):
        await asyncio.sleep(0.01)
        threads.append(threading.current_thread())
        return tf.reduce_sum(logprobs**2)

    specs = [RegularizerSpec(slow, 0.01, "slow"), RegularizerSpec(penalties.l1, 0.1, "fast")]
    with tf.GradientTape() as tape:
        tape.watch(LOGPROBS)
        output = tracked(specs=specs, parallel=True)
    assert norms(output) == pytest.approx(np.sqrt([14, 21, 3, 15.1461]))
    np.testing.assert_allclose(tape.gradient(output.loss, LOGPROBS), TOTAL_GRADIENT)
    assert threads == [threading.current_thread()]


def test_in_parallel_functions_stay_in_the_thread_of_the_tape():
    threads = []

    def note(data, logprobs):
        threads.append(threading.current_thread())
        return tf.reduce_sum(logprobs)

    output = tracked(specs=[RegularizerSpec(note, 1.0, "note")], parallel=True)
    assert threads == [threading.current_thread()]
    assert output.regularizers["note"].grad_norm == pytest.approx(np.sqrt(3))


def test_a_metric_that_is_a_variable_is_its_value_at_the_time():
    counter = tf.Variable(1.0)
    spec = RegularizerSpec(lambda d, x: (tf.reduce_sum(x), {"count": counter}), 1.0, "it")
    output = tracked(specs=[spec])
    counter.assign(5.0)
    assert output.regularizers["it"].custom == {"count": 1.0}


def test_a_function_of_other_variables_alone_has_norm_zero():
    other = tf.Variable(3.0)
    assert gradient_of(lambda data, logprobs: other**2) == 0.0


@pytest.mark.parametrize("of_logprobs", [True, False], ids=["of logprobs", "of another variable"])
def test_each_function_has_one_backward_pass(of_logprobs):
    passes = []

    @tf.custom_gradient
    def squares(x):
        def backward(upstream):
            passes.append(1)
            return 2 * x * upstream

        return tf.reduce_sum(x * x), backward

    other = tf.Variable([3.0, 4.0])
    norm = gradient_of(lambda data, logprobs: squares(logprobs if of_logprobs else other))
    assert norm == pytest.approx(math.sqrt(21) if of_logprobs else 0.0)
    assert len(passes) == 1


def test_a_tensor_that_is_closed_over_is_refused_alone_and_taken_among_logprobs():
    """By hand: hidden = 2 w = (2, 4), whose squares have the slopes 2 hidden = (4, 8)."""
    w = tf.Variable([1.0, 2.0])
    with tf.GradientTape():
        hidden = 2 * w
        spec = RegularizerSpec(lambda d, x: tf.reduce_sum(hidden**2), 1.0, "activity")
        with pytest.raises(RegularizerError, match="closes over belongs among logprobs"):
            tracked(specs=[spec])
        spec = RegularizerSpec(lambda d, x: tf.reduce_sum(x["hidden"] ** 2), 1.0, "activity")
        output = tracked({"x": LOGPROBS, "hidden": hidden}, lambda d, x: d[0] * x["x"][0], [spec])
    assert output.regularizers["activity"].grad_norm == pytest.approx(math.sqrt(80))


NOT_DIFFERENTIABLE = {
    "stopped": lambda data, logprobs: tf.reduce_sum(tf.stop_gradient(logprobs)),
    "read": lambda data, logprobs: tf.constant(logprobs.numpy().sum()),
    "number": lambda data, logprobs: float(tf.reduce_sum(logprobs)),
    "whole": lambda data, logprobs: tf.cast(tf.reduce_sum(logprobs), tf.int32),
    "constant": lambda data, logprobs: tf.constant(2.0),
    "counted": lambda data, logprobs: tf.reduce_sum(tf.cast(logprobs > 0, tf.float32)),
}


@pytest.mark.parametrize("function", NOT_DIFFERENTIABLE.values(), ids=NOT_DIFFERENTIABLE)
def test_what_is_not_differentiable_is_refused_by_name(function):
    with pytest.raises(RegularizerError) as raised:
        gradient_of(function)
    message = str(raised.value.failures["it"])
    assert isinstance(raised.value.failures["it"], ValueError)
    assert message.startswith("track_grad_norms=True, but Regularizer 'it' returned ")
    assert "recorded no way to it from the tensors that gradients are taken by" in message


def test_an_operation_without_a_gradient_is_refused_by_name():
    with pytest.raises(ValueError, match="cannot differentiate") as raised:
        tracked(base=lambda data, logprobs: tf.reduce_sum(tf.unique(logprobs)[0]))
    assert str(raised.value) == (
        "track_grad_norms=True, but base_loss_fn has an operation that TensorFlow cannot "
        "differentiate: gradient registry has no entry for: Unique. Do without it, or call with "
        "track_grad_norms=False."
    )


def test_without_tracking_what_is_not_differentiable_is_only_evaluated():
    for function in NOT_DIFFERENTIABLE.values():
        spec = RegularizerSpec(function, 0.5, "it")
        output = custom_loss(DATA, LOGPROBS, weighted_nll, regularizers=[spec])
        value = float(function(DATA, LOGPROBS))
        assert output.loss_total == pytest.approx(7.5 + 0.5 * value)


def test_a_base_loss_that_is_not_differentiable_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="recorded no way") as raised:
        tracked(base=lambda data, logprobs: tf.constant(2.0))
    kind = "tensorflow.python.framework.ops.EagerTensor"
    assert str(raised.value) == (
        f"track_grad_norms=True, but base_loss_fn returned {kind} of shape () and dtype "
        "<dtype: 'float32'>, and TensorFlow has recorded no way to it from the tensors that "
        "gradients are taken by. Compute it from logprobs in the function, without "
        "tf.stop_gradient() and .numpy(). What was computed before the call is not recorded: with "
        "wrt=, give logprobs as a function of it, such as logprobs=lambda variables: "
        "model(inputs). A tensor that the function closes over belongs among logprobs. Or call "
        "with track_grad_norms=False."
    )


def test_logprobs_without_floats_have_no_gradient():
    with pytest.raises(ValueError, match="none is") as raised:
        tracked({"ids": tf.constant([1, 2]), "mask": np.ones(2)})
    assert str(raised.value) == (
        "track_grad_norms=True, but of the tensors that gradients would be taken by (2) none is a "
        "TensorFlow tensor or variable of floats. Give such logprobs, or the variables: "
        "wrt=model.trainable_variables."
    )
