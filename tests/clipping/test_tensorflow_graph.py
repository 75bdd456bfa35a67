"""`clipping.tensorflow.apply_grads` inside ``tf.function``, and what it refuses there."""

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported

CALLBACKS = {
    "PyFunc",
    "EagerPyFunc",
    "PyFuncStateless",
    "NumpyFunction",
    "HostSend",
    "XlaHostCompute",
}


def adaptive_sgd(x, y, steps, lr):
    """Linear regression, clipped at median plus 3 sample deviations of the clipped norms."""
    w, b, norms = np.zeros((3, 1)), np.zeros(1), []
    for step in range(steps):
        error = x @ w + b - y
        grads = [x.T @ error * 2 / len(x), error.sum(0) * 2 / len(x)]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        scale = 1.0
        if step >= 2:
            threshold = np.median(norms) + 3 * np.std(norms, ddof=1)
            scale = threshold / (norm + 1e-8) if norm > threshold else 1.0
        norms.append(norm * scale)
        w, b = w - lr * scale * grads[0], b - lr * scale * grads[1]
        y = y * (1.0 if step % 7 else -3.0)  # what was learned is wrong now and then
    return w, b, norms


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_weights_after_30_steps_equal_a_loop_written_by_hand(graph):
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 3)), rng.standard_normal((16, 1))
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")], name="net"
    )
    optimizer = keras.optimizers.SGD(0.05)
    clipper = clipping.AutoClip(warmup_steps=2, min_history=2, window_size=64)
    optimizer.build(model.trainable_variables)

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        grads = tape.gradient(loss, model.trainable_variables)
        grads = sc_tf.apply_grads(grads, model, clipper)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    train = tf.function(train_step, autograph=False) if graph else train_step
    targets = tf.constant(y, tf.float32)
    for step in range(30):
        train(tf.constant(x, tf.float32), targets)
        targets *= 1.0 if step % 7 else -3.0

    w, b, norms = adaptive_sgd(x, y, 30, 0.05)
    np.testing.assert_allclose(model.trainable_variables[0], w, rtol=1e-4)
    np.testing.assert_allclose(model.trainable_variables[1], b, rtol=1e-4)
    np.testing.assert_allclose(clipper.state_dict()["norms"][0], norms, rtol=1e-4)


def test_nothing_in_the_graph_calls_back_into_python(compiled_clip):
    step = compiled_clip(clipping.AutoClip(scope="per_param"))
    with capture(telemetry.ALL) as events:
        graph = step.get_concrete_function(tf.TensorSpec([2])).graph
        step(tf.constant([3.0, 4.0]))
    kinds = {operation.type for operation in graph.get_operations()}
    assert "AssignVariableOp" in kinds
    assert not kinds & CALLBACKS
    assert events == []


@pytest.mark.parametrize("scope", ["global", "per_param", "per_unit"])
def test_xla_gives_the_same(scope):
    rng = np.random.default_rng(2)
    weights = [
        tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ((4, 3), (3,), (5, 2))
    ]

    def make():
        options = {"scope": scope, "on_nonfinite": "zero"}
        if scope == "per_unit":
            return clipping.AGC(clipping=0.5, **options)
        return clipping.AutoClip(window_size=8, warmup_steps=2, min_history=2, **options)

    def build(clipper, **options):
        def clip(dense, bias, values, indices):
            slices = tf.IndexedSlices(values, indices, tf.constant([5, 2]))
            clipped = sc_tf.apply_grads([dense, bias, slices], weights, clipper)
            return clipped[0], clipped[1], tf.convert_to_tensor(clipped[2])

        return tf.function(clip, autograph=False, **options)

    plain, fast = make(), make()
    one, other = build(plain), build(fast, jit_compile=True)
    for step in range(12):
        grads = [rng.standard_normal(s).astype("float32") for s in ((4, 3), (3,), (2, 2))]
        grads[1][0] = np.nan if step == 5 else 20.0 if step == 8 else 0.0
        grads = [tf.constant(g) for g in grads]
        indices = tf.constant([1, 1 if step % 2 else 3])
        for a, b in zip(one(*grads, indices), other(*grads, indices), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert plain.threshold_any() == pytest.approx(fast.threshold_any(), rel=1e-5)
    sc_tf.emit(fast)


class TestRefusals:
    def traced(self, clipper, **options):
        weight = tf.Variable([0.0])

        @tf.function(autograph=False)
        def step(gradient):
            return sc_tf.apply_grads([gradient], [weight], clipper, **options)

        step(tf.constant([1.0]))

    def test_on_metrics_belongs_to_emit(self):
        clipper = clipping.AutoClip()
        with pytest.raises(ValueError, match=r"call clipping.tensorflow.emit\(clipper, on_metrics"):
            self.traced(clipper, on_metrics=print)
        assert clipper.state_dict()["steps"] == 0

    def test_a_graph_cannot_raise(self):
        with pytest.raises(ValueError, match=r"Allowed there: 'skip', 'zero' and 'propagate'"):
            self.traced(clipping.AutoClip(on_nonfinite="raise"))
        self.traced(clipping.AutoClip(on_nonfinite="raise", dry_run=True))

    def test_emitting_belongs_outside(self, compiled_clip, make_halving):
        clipper = make_halving()
        step = compiled_clip(clipper)
        step(tf.constant([3.0, 4.0]))
        with pytest.raises(ValueError, match=r"after the tf.function that calls apply_grads"):
            tf.function(lambda: sc_tf.emit(clipper), autograph=False)()

    def test_the_state_is_read_outside(self, compiled_clip, make_halving):
        clipper = make_halving()
        step = compiled_clip(clipper)
        step(tf.constant([3.0, 4.0]))
        with pytest.raises(RuntimeError, match=r"cannot be read while a tf.function is traced"):
            tf.function(clipper.threshold_any, autograph=False)()

    def test_old_graphs_are_refused(self):
        with tf.Graph().as_default():
            weight, gradient = tf.Variable([0.0]), tf.constant([1.0])
            with pytest.raises(RuntimeError, match=r"not in a tf.compat.v1 graph"):
                sc_tf.apply_grads([gradient], [weight], clipping.AutoClip())

    def test_a_function_that_has_been_called_before_cannot_make_variables(self):
        weight, clippers = tf.Variable([0.0]), [clipping.AutoClip(), clipping.AutoClip()]

        @tf.function(autograph=False)
        def step(gradient, which):
            return sc_tf.apply_grads([gradient], [weight], clippers[which])

        step(tf.constant([1.0]), 0)
        with pytest.raises(ValueError, match=r"clipping.tensorflow.variables\(clipper, model\)"):
            step(tf.constant([1.0]), 1)
        sc_tf.variables(clippers[1], [weight])
        step(tf.constant([1.0]), 1)
        assert [c.state_dict()["steps"] for c in clippers] == [1, 1]


def test_autograph_leaves_it_alone(make_halving):
    clipper, weight = make_halving(), tf.Variable([0.0, 0.0])

    @tf.function
    def step(gradient):
        (clipped,) = sc_tf.apply_grads([gradient], [weight], clipper)
        return clipped

    np.testing.assert_allclose(step(tf.constant([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
