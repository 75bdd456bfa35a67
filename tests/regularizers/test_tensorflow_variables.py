"""Gradients by TensorFlow's variables, and tensors of all kinds of dtypes."""

import math

import numpy as np
import pytest

from regularizers import RegularizerSpec, custom_loss, penalties, schedules
from regularizers.backends import find_backend

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

# By hand: w = (2, 3), x = (1, -1), logprobs = w x; l1 has the slope sign(w x) x = (1, 1) by w,
# l2 has 2 w x**2 = (4, 6).
X = tf.constant([1.0, -1.0])
SPECS = [RegularizerSpec(penalties.l2, 0.5, "decay")]
BASE_NORM, DECAY_NORM, TOTAL_NORM = math.sqrt(2), math.sqrt(52), math.sqrt(9 + 16)


def variable(**options):
    return tf.Variable([2.0, 3.0], **options)


def tracked(logprobs, wrt=None, base=penalties.l1, specs=SPECS):
    return custom_loss(None, logprobs, base, regularizers=specs, wrt=wrt, track_grad_norms=True)


def assert_closed_forms(output):
    assert output.base_loss.grad_norm == pytest.approx(BASE_NORM)
    assert output.regularizers["decay"].grad_norm == pytest.approx(DECAY_NORM)
    assert output.total_grad_norm == pytest.approx(TOTAL_NORM)


def test_tensors_and_variables_belong_to_tensorflow_and_those_of_keras_to_their_backend():
    keras = pytest.importorskip("keras")
    assert find_backend(X).name == find_backend(variable()).name == "tensorflow"
    if keras.backend.backend() == "tensorflow":
        assert find_backend(keras.Variable([1.0])).name == "tensorflow"


def test_logprobs_can_be_a_function_of_the_variables():
    calls = []

    def logprobs(variables):
        calls.append(variables)
        return variables["w"] * X

    w = variable()
    with tf.GradientTape() as tape:
        output = tracked(logprobs, {"w": w})
    assert_closed_forms(output)
    assert len(calls) == 1
    np.testing.assert_allclose(tape.gradient(output.loss, w), [3.0, 4.0])


def test_logprobs_can_be_a_function_that_knows_the_variables():
    w = variable()
    assert_closed_forms(tracked(lambda _: w * X, [w]))


def test_functions_can_use_the_variables_themselves():
    w = variable()
    base, decay = (lambda d, x, f=f: f(d, w * x) for f in (penalties.l1, penalties.l2))
    assert_closed_forms(tracked(X, [w], base, [RegularizerSpec(decay, 0.5, "decay")]))


def test_a_variable_that_is_given_twice_counts_once():
    w = variable()
    assert_closed_forms(tracked(lambda _: w * X, [w, w]))


def test_a_variable_that_is_not_trainable_can_be_asked_about():
    w = variable(trainable=False)
    assert_closed_forms(tracked(lambda _: w * X, [w]))


def test_variables_can_be_the_logprobs():
    """By hand: l1 has the slope sign(w) = (1, 1), l2 has 2 w = (4, 6)."""
    assert_closed_forms(tracked({"w": variable()}))


def test_the_variables_of_a_keras_model_can_be_asked_about():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend here")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[2.0]])])
    output = tracked(lambda _: model(tf.constant([[3.0]])), model.trainable_variables)
    # |3 w| and (3 w)**2 at w = 2: the slopes are 3 and 36.
    assert (output.base_loss.grad_norm, output.regularizers["decay"].grad_norm) == (3.0, 36.0)
    assert output.total_grad_norm == 3.0 + 18.0


def test_what_was_computed_before_the_call_is_refused():
    w = variable()
    with tf.GradientTape(), pytest.raises(ValueError, match="before the call is not recorded"):
        tracked(w * X, [w])


def test_gradients_of_a_lookup_are_summed_over_what_was_looked_up_twice():
    """By hand: rows 0, 0, 2 of a table of ones; the gradients are (2, 2), (0, 0), (1, 1).

    That of l2 of the table, weighted by 0.5, is one everywhere.
    """
    table = tf.Variable(tf.ones((3, 2)))
    spec = RegularizerSpec(lambda d, x: penalties.l2(d, table), 0.5, "decay")
    output = tracked(lambda v: tf.gather(v[0], [0, 0, 2]), [table], penalties.l1, [spec])
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(10))
    assert output.regularizers["decay"].grad_norm == pytest.approx(math.sqrt(24))
    assert output.total_grad_norm == pytest.approx(math.sqrt(2 * (9 + 1 + 4)))


def test_the_total_takes_in_what_the_base_loss_does_not_depend_on():
    """By hand: the gradients are (1, 1) by a, and 0.5 * 2 b = (2, 3) by b."""
    a, b = variable(), variable()
    spec = RegularizerSpec(lambda d, x: penalties.l2(d, b), 0.5, "decay")
    output = tracked(lambda _: a * X, [a, b], penalties.l1, [spec])
    assert output.total_grad_norm == pytest.approx(math.sqrt(2 + 13))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_measured_and_added_up_in_float32(dtype):
    """By hand: 10,000 slopes of 300 have the norm 30,000; their squares overflow in float16."""
    logprobs = tf.zeros(10_000, dtype)
    output = custom_loss(
        None,
        logprobs,
        lambda data, logprobs: tf.reduce_sum(logprobs * 300),
        regularizers=[RegularizerSpec(penalties.l2, 1.0, "decay")],
        track_grad_norms=True,
    )
    assert output.base_loss.grad_norm == pytest.approx(30_000, rel=1e-2)
    assert output.total_grad_norm == output.base_loss.grad_norm
    assert output.loss.dtype == tf.float32


@pytest.mark.parametrize("weight", [0.5, lambda step: tf.constant(0.5)], ids=["number", "tensor"])
@pytest.mark.parametrize("track", [False, True])
def test_terms_of_different_dtypes_are_added_up_in_the_widest(weight, track):
    x = tf.constant([3.0], tf.float64)
    casts = {
        kind: lambda d, x, kind=kind: tf.cast(tf.reduce_sum(x), kind)
        for kind in ("float16", "float32", "float64")
    }
    specs = [RegularizerSpec(function, weight, kind) for kind, function in casts.items()]
    output = custom_loss(
        None,
        x,
        lambda d, x: tf.cast(tf.reduce_sum(x), tf.float32),
        regularizers=specs,
        track_grad_norms=track,
        step=0,
    )
    assert output.loss.dtype == tf.float64
    assert output.loss_total == 3.0 + 3 * 1.5


def test_a_schedule_of_a_variable_is_a_tensor_and_is_not_read():
    step = tf.Variable(1, dtype=tf.int64)
    spec = RegularizerSpec(penalties.l1, schedules.linear_warmup(0.2, steps=2), "sparsity")
    output = custom_loss(None, X, penalties.l2, regularizers=[spec], step=step)
    assert isinstance(vars(output.regularizers["sparsity"])["weight"], tf.Tensor)
    step.assign_add(1)
    assert output.regularizers["sparsity"].weight == pytest.approx(0.1)
    assert output.loss_total == pytest.approx(2.2)
