"""`clipping.tensorflow` inside ``tf.function``: one state with eager code, events by `emit`."""

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported

CLIP = ("smartclip", "clip")
CALLBACKS = {
    "PyFunc",
    "EagerPyFunc",
    "PyFuncStateless",
    "NumpyFunction",
    "HostSend",
    "XlaHostCompute",
}


def halving(**options):
    """A clipper that has seen norm 1 in a model of one group and cuts any larger one to that."""
    clipper = clipping.AutoClip(
        mode="percentile",
        percentile=1e-9,
        history="window",
        warmup_steps=0,
        min_history=1,
        **options,
    )
    clipping.numpy.apply_grads(np.array([1.0]), np.zeros(1), clipper)
    return clipper


def compiled(clipper, weight=None, **options):
    """A graph that clips one gradient."""
    weight = tf.Variable([0.0, 0.0]) if weight is None else weight

    @tf.function(autograph=False, **options)
    def step(gradient):
        return sc_tf.apply_grads([gradient], [weight], clipper)[0]

    return step


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


def test_nothing_in_the_graph_calls_back_into_python():
    step = compiled(clipping.AutoClip(scope="per_param"))
    with capture(telemetry.ALL) as events:
        graph = step.get_concrete_function(tf.TensorSpec([2])).graph
        step(tf.constant([3.0, 4.0]))
    kinds = {operation.type for operation in graph.get_operations()}
    assert "AssignVariableOp" in kinds
    assert not kinds & CALLBACKS
    assert events == []


def test_eager_code_and_graphs_share_one_history():
    clipper, weight = halving(), tf.Variable([0.0, 0.0])
    step = compiled(clipper, weight)
    sc_tf.apply_grads([tf.constant([3.0, 4.0])], [weight], clipper)
    np.testing.assert_allclose(step(tf.constant([6.0, 8.0])), [0.6, 0.8], rtol=1e-6)
    sc_tf.apply_grads([tf.constant([0.0, 7.0])], [weight], clipper)
    assert clipper.state_dict()["norms"] == [[1.0, 5.0, 10.0, 7.0]]
    assert clipper.threshold_any() == pytest.approx(1.0)


def test_the_state_survives_retracing():
    clipper, table = halving(), tf.Variable(tf.zeros((4, 1)))
    step = compiled(clipper, table)
    step(tf.constant([[5.0]] * 4))
    for rows in (2, 3):  # sparse gradients of other sizes are traced anew
        indices = tf.range(rows)
        step(tf.IndexedSlices(tf.ones((rows, 1)), indices, tf.constant([4, 1])))
    assert step.experimental_get_tracing_count() > 2
    assert clipper.state_dict()["norms"][0] == pytest.approx([1, 10, np.sqrt(2), np.sqrt(3)])


def test_loading_after_tracing_takes_effect_in_the_graph():
    clipper = halving()
    step = compiled(clipper)
    calm = clipper.state_dict()
    step(tf.constant([0.5, 0.0]))
    assert clipper.threshold_any() == pytest.approx(0.5)
    clipper.load_state_dict(calm)
    assert clipper.state_dict() == calm
    np.testing.assert_allclose(step(tf.constant([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    assert clipper.state_dict()["norms"] == [[1.0, 5.0]]


def test_loading_an_unused_clipper_starts_anew():
    clipper = halving()
    step = compiled(clipper)
    step(tf.constant([3.0, 4.0]))
    clipper.load_state_dict(clipping.AutoClip().state_dict())
    np.testing.assert_array_equal(step(tf.constant([6.0, 8.0])), [6.0, 8.0])
    assert clipper.state_dict()["norms"] == [[10.0]]


def test_loading_the_state_of_another_model_after_tracing_is_refused():
    clipper, other = clipping.AutoClip(scope="per_param"), clipping.AutoClip(scope="per_param")
    step = compiled(clipper)
    step(tf.constant([3.0, 4.0]))
    clipping.numpy.apply_grads([np.ones(1)] * 2, [np.ones(1)] * 2, other)
    before = clipper.state_dict()
    with pytest.raises(ValueError, match=r"is of 2 groups.*Load it into a new clipper"):
        clipper.load_state_dict(other.state_dict())
    assert clipper.state_dict() == before


def test_it_resumes_bit_identically():
    rng = np.random.default_rng(5)
    steps = [tf.constant(rng.standard_normal(2) * s, tf.float32) for s in rng.lognormal(size=24)]

    def make():
        return clipping.ZScoreClip(zmax=0.5, warmup_steps=2, min_history=2)

    whole, first, second = make(), make(), make()
    expected = list(map(compiled(whole), steps))
    found = list(map(compiled(first), steps[:12]))
    second.load_state_dict(first.state_dict())
    found += list(map(compiled(second), steps[12:]))
    np.testing.assert_array_equal(found, expected)
    assert second.state_dict() == whole.state_dict()
    assert (np.array(found[12:]) != np.array(steps[12:])).any()


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


class TestEmit:
    def test_the_last_step_is_reported_when_it_is_asked_for(self):
        clipper = halving()
        step = compiled(clipper)
        step(tf.constant([3.0, 4.0]))
        with telemetry.context(run="r1"), capture(telemetry.ALL) as events:
            sc_tf.emit(clipper)
        group, stop = events
        assert (group.event, stop.event) == ((*CLIP, "group"), (*CLIP, "stop"))
        assert stop.measurements == {
            "grad_norm": 5.0,
            "clipped_grad_norm": pytest.approx(1.0),
            "scale": pytest.approx(0.2),
            "groups": 1,
            "groups_clipped": 1,
            "threshold": pytest.approx(1.0),
        }
        assert stop.metadata == {
            "algo": "autoclip",
            "scope": "global",
            "backend": "tensorflow",
            "dry_run": False,
            "outcome": "applied",
            "clipper_step": 2,
            "run": "r1",
        }
        assert group.metadata["key"] == ("global",)
        assert group.measurements["clipped"] is True

    def test_on_metrics_hears_what_is_emitted(self):
        clipper, seen = halving(), []
        compiled(clipper)(tf.constant([3.0, 4.0]))
        sc_tf.emit(clipper, on_metrics=seen.append)
        assert seen[0]["grad_norm"] == 5.0
        assert type(seen[0]["scale"]) is float

    def test_what_is_not_finite_is_named(self):
        clipper = clipping.AutoClip(scope="per_param", on_nonfinite="zero")
        weights = [tf.Variable([0.0]), tf.Variable([0.0])]

        @tf.function(autograph=False)
        def step(a, b):
            return sc_tf.apply_grads([a, b], weights, clipper)

        step(tf.constant([1.0]), tf.constant([np.nan]))
        with capture((*CLIP, "nonfinite")) as events:
            sc_tf.emit(clipper)
        (event,) = events
        assert event.metadata["keys"] == (("param", "1"),)
        assert event.metadata["clipper_step"] == 1
        assert event.measurements["count"] == 1

    def test_groups_without_a_gradient_in_that_step_are_left_out(self):
        clipper = clipping.AutoClip(scope="per_param")
        weights = [tf.Variable([0.0]), tf.Variable([0.0])]

        @tf.function(autograph=False)
        def step(a, b):
            return sc_tf.apply_grads([a, b], weights, clipper)

        def emitted():
            with capture((*CLIP, "group")) as events:
                sc_tf.emit(clipper)
            return [event.metadata["key"][1] for event in events]

        one = tf.constant([1.0])
        step(one, one)
        assert emitted() == ["0", "1"]
        step(None, one)
        assert emitted() == ["1"]
        step(one, one)
        assert emitted() == ["0", "1"]

    def test_on_an_accelerator_nothing_is_read(self, monkeypatch):
        """A CPU that is taken for a device whose values are not to be waited for."""
        from clipping.backends import tensorflow as backend

        monkeypatch.setattr(backend, "on_cpu", lambda tensor: False)
        clipper = halving()
        compiled(clipper)(tf.constant([3.0, 4.0]))
        with capture((*CLIP, "stop")) as events:
            sc_tf.emit(clipper)
        assert isinstance(events[0].measurements["grad_norm"], tf.Tensor)
        assert not {"outcome", "clipper_step"} & events[0].metadata.keys()

    def test_before_the_first_step_there_is_nothing(self):
        clipper = clipping.AutoClip()
        with pytest.raises(ValueError, match=r"a tf.function traced no step of it yet"):
            sc_tf.emit(clipper)
        step = compiled(clipper)
        step.get_concrete_function(tf.TensorSpec([2]))
        with pytest.raises(ValueError, match=r"has not run yet"):
            sc_tf.emit(clipper)


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

    def test_emitting_belongs_outside(self):
        clipper = halving()
        step = compiled(clipper)
        step(tf.constant([3.0, 4.0]))
        with pytest.raises(ValueError, match=r"after the tf.function that calls apply_grads"):
            tf.function(lambda: sc_tf.emit(clipper), autograph=False)()

    def test_the_state_is_read_outside(self):
        clipper = halving()
        step = compiled(clipper)
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


def test_autograph_leaves_it_alone():
    clipper, weight = halving(), tf.Variable([0.0, 0.0])

    @tf.function
    def step(gradient):
        (clipped,) = sc_tf.apply_grads([gradient], [weight], clipper)
        return clipped

    np.testing.assert_allclose(step(tf.constant([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
