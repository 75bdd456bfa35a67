"""`clipping.tensorflow.apply_grads` in eager code, and what it refuses."""

import sys

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported

CLIP = ("smartclip", "clip")


def test_the_example_of_the_telemetry_guide():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    opt = keras.optimizers.SGD(0.1)
    loss_fn = keras.losses.MeanSquaredError()
    x, y = tf.ones((4, 3)), tf.zeros((4, 2))
    clipper = clipping.AutoClip()
    seen = []

    def on_metrics(rec):
        seen.append(rec)

    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = loss_fn(y, logits)
    raw = grads = tape.gradient(loss, model.trainable_variables)
    grads = sc_tf.apply_grads(grads, model, clipper, on_metrics=on_metrics)
    opt.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    norm = pytest.approx(np.sqrt(sum(np.sum(np.square(g)) for g in raw)), rel=1e-6)
    assert seen == [
        {
            "algo": "autoclip",
            "key": ("global",),
            "scope": "global",
            "grad_norm": norm,
            "threshold": float("inf"),
            "scale": 1.0,
            "clipped": False,
        }
    ]
    assert type(seen[0]["grad_norm"]) is float


@pytest.mark.usefixtures("op_by_op")
class TestGradients:
    def test_a_large_gradient_is_cut_and_what_was_given_stays(self, clip_tensors, make_halving):
        given = tf.constant([3.0, 4.0])
        (clipped,) = clip_tensors(given, clipper=make_halving())
        np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
        np.testing.assert_array_equal(given, [3.0, 4.0])

    def test_any_structure_is_given_back(self, make_halving):
        weights = {"b": tf.Variable(0.0), "a": (tf.Variable([0.0]), [tf.Variable([0.0, 0.0])])}
        grads = {"b": tf.constant(2.0), "a": (None, [tf.constant([1.0, 2.0])])}
        clipped = sc_tf.apply_grads(grads, weights, make_halving())
        assert clipped["a"][0] is None
        assert isinstance(clipped["a"], tuple)
        np.testing.assert_allclose(clipped["b"], 2 / 3, rtol=1e-6)
        np.testing.assert_allclose(clipped["a"][1][0], [1 / 3, 2 / 3], rtol=1e-6)

    def test_dry_run_leaves_the_gradients_alone(self, clip_tensors, make_halving):
        given, clipper = tf.constant([3.0, 4.0]), make_halving(dry_run=True)
        with capture((*CLIP, "stop")) as events:
            (result,) = clip_tensors(given, clipper=clipper)
        np.testing.assert_array_equal(result, given)
        assert events[0].measurements["scale"] == pytest.approx(0.2)
        assert events[0].metadata["dry_run"] is True

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_measured_and_scaled_in_float32(
        self, dtype, clip_tensors, make_halving
    ):
        # 300 ** 2 overflows float16, and 4,096 times 1 does not add up in bfloat16.
        given = tf.cast(tf.fill([4096], 300.0), dtype)
        (clipped,) = clip_tensors(given, clipper=make_halving())
        assert clipped.dtype == dtype
        factor = np.float32(1 / (300 * 64))
        expected = tf.cast(tf.cast(given, tf.float32) * factor, dtype)
        np.testing.assert_array_equal(tf.cast(clipped, "float32"), tf.cast(expected, "float32"))

    @pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
    def test_other_precisions_keep_their_dtype(self, dtype, clip_tensors, make_halving):
        given = tf.constant(np.array([3.0, 4.0 if dtype == "float64" else 4.0j], dtype))
        (clipped,) = clip_tensors(given, clipper=make_halving())
        assert clipped.dtype == dtype
        np.testing.assert_allclose(clipped, given.numpy() / 5, rtol=1e-6)

    @pytest.mark.parametrize("parameters", [1, 2])
    @pytest.mark.parametrize("size", [1e20, 1e-25])
    def test_norms_of_float64_may_have_squares_beyond_float32(self, size, parameters):
        clipper = clipping.AutoClip()
        grads = [tf.constant([3 * size, 4 * size], tf.float64), tf.constant(12 * size, tf.float64)]
        weights = [tf.Variable(tf.zeros_like(g)) for g in grads]
        clipped = sc_tf.apply_grads(grads[:parameters], weights[:parameters], clipper)
        np.testing.assert_array_equal(clipped[0], [3 * size, 4 * size])
        expected = 5 * size if parameters == 1 else 13 * size
        assert clipper.state_dict()["norms"][0] == pytest.approx([expected], rel=1e-6)

    def test_units_of_float64_may_have_squares_beyond_float32(self):
        clipper = clipping.AGC(clipping=1.0, scope="per_unit", exclude_bias_bn=False)
        weight = tf.Variable([1.0], dtype=tf.float64)
        (clipped,) = sc_tf.apply_grads([tf.constant([1e20], tf.float64)], [weight], clipper)
        np.testing.assert_allclose(clipped, [1.0], rtol=1e-6)

    def test_a_sparse_gradient_stays_sparse_and_counts_its_rows_once_summed(self, make_halving):
        slices = tf.IndexedSlices(
            tf.constant([[1.0, 0.0], [2.0, 0.0], [0.0, 4.0]]),
            tf.constant([5, 5, 2]),
            tf.constant([9, 2]),
        )
        table, clipper = tf.Variable(tf.zeros((9, 2))), make_halving()
        with capture((*CLIP, "stop")) as events:
            (clipped,) = sc_tf.apply_grads([slices], [table], clipper)
        assert events[0].measurements["grad_norm"] == pytest.approx(5.0)  # of (3, 4)
        assert isinstance(clipped, tf.IndexedSlices)
        assert clipped.values.shape == (3, 2)
        expected = np.zeros((9, 2))
        expected[5, 0], expected[2, 1] = 0.6, 0.8
        np.testing.assert_allclose(tf.convert_to_tensor(clipped), expected, rtol=1e-6)

    def test_the_policy_skip_zeroes_what_is_not_finite(self, clip_tensors, make_halving):
        grads, clipper = [tf.constant([np.nan, 1.0]), tf.constant(2.0)], make_halving()
        with capture((*CLIP, "nonfinite"), (*CLIP, "stop")) as events:
            clipped = clip_tensors(*grads, clipper=clipper)
        assert [g.numpy().tolist() for g in clipped] == [[0, 0], 0]
        assert events[0].metadata == {"algo": "autoclip", "keys": (("global",),), "policy": "skip"}
        assert events[0].measurements["count"] == 1
        assert events[1].metadata["outcome"] == "skipped"

    def test_the_policy_raise_changes_nothing(self, clip_tensors):
        clipper = clipping.AutoClip(on_nonfinite="raise")
        clip_tensors(tf.constant([1.0]), clipper=clipper)
        before = clipper.state_dict()
        with pytest.raises(FloatingPointError, match=r"gradient norm is inf.*untouched"):
            clip_tensors(tf.constant([np.inf]), clipper=clipper)
        assert clipper.state_dict() == before


GRADIENT = tf.constant([1.0, 2.0])


@pytest.mark.usefixtures("op_by_op")
class TestRefusals:
    @pytest.mark.parametrize(
        ("grads", "model", "error", "text"),
        [
            ([GRADIENT], [], ValueError, r"without variables, got \[\] \(list\)"),
            ([GRADIENT], object(), TypeError, r"trainable_variables, or be a list of variables"),
            ([GRADIENT], [GRADIENT], TypeError, r"Allowed: a Keras model"),
            ([GRADIENT, GRADIENT], "one", ValueError, r"list of 2 against list of 1"),
            ({"w": GRADIENT}, "one", ValueError, r"dict of 1 against list of 1"),
            ([None], "one", ValueError, r"no gradient to clip: all 1 are None"),
            ([tf.constant([1, 2])], "one", TypeError, r"'w' has dtype int32. Allowed: floating"),
            ([np.ones(2, "float32")], "one", TypeError, r"must be a tensor, tf.IndexedSlices or"),
            ([tf.constant([1.0])], "one", ValueError, r"'w' has shape \(1,\), the variable \(2,\)"),
            ([GRADIENT, GRADIENT], "twice", ValueError, r"variable 'w' is given twice"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, grads, model, error, text):
        weight = tf.Variable([0.0, 0.0], name="w")
        named = {"one": [weight], "twice": [weight, weight]}
        model = named[model] if isinstance(model, str) else model
        clipper = clipping.AutoClip()
        with pytest.raises(error, match=text):
            sc_tf.apply_grads(grads, model, clipper)
        assert clipper.state_dict()["steps"] == 0

    def test_sparse_gradients_of_another_width_are_refused(self):
        slices = tf.IndexedSlices(tf.ones((2, 3)), tf.constant([0, 1]), tf.constant([4, 3]))
        with pytest.raises(ValueError, match=r"has shape \(2, 3\), the variable \(4, 2\)"):
            sc_tf.apply_grads([slices], [tf.Variable(tf.ones((4, 2)))], clipping.AutoClip())

    def test_another_model_is_refused(self, clip_tensors):
        clipper = clipping.AutoClip(scope="per_param")
        clip_tensors(GRADIENT, clipper=clipper)
        with pytest.raises(ValueError, match=r"Use one clipper per model"):
            clip_tensors(GRADIENT, GRADIENT, clipper=clipper)
        clip_tensors(GRADIENT, clipper=clipper)
        assert clipper.state_dict()["steps"] == 2

    def test_other_units_are_refused(self, clip_tensors):
        clipper = clipping.AGC(scope="per_unit")
        clip_tensors(tf.ones((2, 3)), clipper=clipper)
        with pytest.raises(ValueError, match=r"are of 3 units, the gradients of 4"):
            clip_tensors(tf.ones((2, 4)), clipper=clipper)

    def test_a_clipper_that_is_none_is_refused(self):
        with pytest.raises(TypeError, match=r"write clipping.AutoClip\(\)"):
            sc_tf.apply_grads([GRADIENT], [tf.Variable([0.0, 0.0])], clipping.AutoClip)

    def test_a_callback_that_is_none_is_refused(self, clip_tensors):
        with pytest.raises(TypeError, match=r"on_metrics must be a function"):
            clip_tensors(GRADIENT, clipper=clipping.AutoClip(), on_metrics=3)

    def test_without_tensorflow_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "clipping.tensorflow")
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(telemetry.MissingExtraError, match=r"'trainbus\[tensorflow\]'"):
            __import__("clipping.tensorflow")
