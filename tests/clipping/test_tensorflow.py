"""`clipping.tensorflow.apply_grads` in eager code, and what it refuses."""

import copy
import json
import sys

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported
from clipping.backends import tensorflow as backend  # noqa: E402

CLIP = ("smartclip", "clip")


@pytest.fixture
def op_by_op():
    """Nothing is compiled, which takes longer than a few steps of a small model."""
    tf.config.run_functions_eagerly(run_eagerly=True)
    yield
    tf.config.run_functions_eagerly(run_eagerly=False)


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


def clip(*grads, clipper, **options):
    variables = [tf.Variable(tf.zeros_like(g)) for g in grads]
    return sc_tf.apply_grads(list(grads), variables, clipper, **options)


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
    def test_a_large_gradient_is_cut_and_what_was_given_stays(self):
        given = tf.constant([3.0, 4.0])
        (clipped,) = clip(given, clipper=halving())
        np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
        np.testing.assert_array_equal(given, [3.0, 4.0])

    def test_any_structure_is_given_back(self):
        weights = {"b": tf.Variable(0.0), "a": (tf.Variable([0.0]), [tf.Variable([0.0, 0.0])])}
        grads = {"b": tf.constant(2.0), "a": (None, [tf.constant([1.0, 2.0])])}
        clipped = sc_tf.apply_grads(grads, weights, halving())
        assert clipped["a"][0] is None
        assert isinstance(clipped["a"], tuple)
        np.testing.assert_allclose(clipped["b"], 2 / 3, rtol=1e-6)
        np.testing.assert_allclose(clipped["a"][1][0], [1 / 3, 2 / 3], rtol=1e-6)

    def test_dry_run_leaves_the_gradients_alone(self):
        given, clipper = tf.constant([3.0, 4.0]), halving(dry_run=True)
        with capture((*CLIP, "stop")) as events:
            (result,) = clip(given, clipper=clipper)
        np.testing.assert_array_equal(result, given)
        assert events[0].measurements["scale"] == pytest.approx(0.2)
        assert events[0].metadata["dry_run"] is True

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_measured_and_scaled_in_float32(self, dtype):
        # 300 ** 2 overflows float16, and 4,096 times 1 does not add up in bfloat16.
        given = tf.cast(tf.fill([4096], 300.0), dtype)
        (clipped,) = clip(given, clipper=halving())
        assert clipped.dtype == dtype
        factor = np.float32(1 / (300 * 64))
        expected = tf.cast(tf.cast(given, tf.float32) * factor, dtype)
        np.testing.assert_array_equal(tf.cast(clipped, "float32"), tf.cast(expected, "float32"))

    @pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128"])
    def test_other_precisions_keep_their_dtype(self, dtype):
        given = tf.constant(np.array([3.0, 4.0 if dtype == "float64" else 4.0j], dtype))
        (clipped,) = clip(given, clipper=halving())
        assert clipped.dtype == dtype
        np.testing.assert_allclose(clipped, given.numpy() / 5, rtol=1e-6)

    def test_a_sparse_gradient_stays_sparse_and_counts_its_rows_once_summed(self):
        slices = tf.IndexedSlices(
            tf.constant([[1.0, 0.0], [2.0, 0.0], [0.0, 4.0]]),
            tf.constant([5, 5, 2]),
            tf.constant([9, 2]),
        )
        table, clipper = tf.Variable(tf.zeros((9, 2))), halving()
        with capture((*CLIP, "stop")) as events:
            (clipped,) = sc_tf.apply_grads([slices], [table], clipper)
        assert events[0].measurements["grad_norm"] == pytest.approx(5.0)  # of (3, 4)
        assert isinstance(clipped, tf.IndexedSlices)
        assert clipped.values.shape == (3, 2)
        expected = np.zeros((9, 2))
        expected[5, 0], expected[2, 1] = 0.6, 0.8
        np.testing.assert_allclose(tf.convert_to_tensor(clipped), expected, rtol=1e-6)

    def test_the_policy_skip_zeroes_what_is_not_finite(self):
        grads, clipper = [tf.constant([np.nan, 1.0]), tf.constant(2.0)], halving()
        with capture((*CLIP, "nonfinite"), (*CLIP, "stop")) as events:
            clipped = clip(*grads, clipper=clipper)
        assert [g.numpy().tolist() for g in clipped] == [[0, 0], 0]
        assert events[0].metadata == {"algo": "autoclip", "keys": (("global",),), "policy": "skip"}
        assert events[0].measurements["count"] == 1
        assert events[1].metadata["outcome"] == "skipped"

    def test_the_policy_raise_changes_nothing(self):
        clipper = clipping.AutoClip(on_nonfinite="raise")
        clip(tf.constant([1.0]), clipper=clipper)
        before = clipper.state_dict()
        with pytest.raises(FloatingPointError, match=r"gradient norm is inf.*untouched"):
            clip(tf.constant([np.inf]), clipper=clipper)
        assert clipper.state_dict() == before


@pytest.mark.usefixtures("op_by_op")
class TestScopes:
    def keys(self, grads, model, **options):
        clipper = clipping.AutoClip(**options)
        with capture((*CLIP, "group")) as events:
            sc_tf.apply_grads(grads, model, clipper)
        return [event.metadata["key"] for event in events]

    def test_layers_of_keras_are_told_by_their_paths(self):
        keras = pytest.importorskip("keras")
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)], name="net"
        )
        assert {v.name for v in model.trainable_variables} == {"kernel", "bias"}
        grads = [tf.ones(v.shape) for v in model.trainable_variables]
        keys = self.keys(grads, model, scope="per_layer")
        assert [kind for kind, _ in keys] == ["layer", "layer"]
        owners = [v.path.rpartition("/")[0] for v in model.trainable_variables]
        assert [name for _, name in keys] == list(dict.fromkeys(owners))
        assert len(set(owners)) == 2

    def test_layers_of_plain_variables_are_told_by_their_names(self):
        names = ["net/dense/kernel", "net/dense/bias", "net/out/kernel", "scale"]
        variables = [tf.Variable(0.0, name=name) for name in names]
        keys = self.keys([tf.constant(1.0)] * 4, variables, scope="per_layer")
        assert keys == [("layer", "net/dense"), ("layer", "net/out"), ("layer", "root")]

    def test_layers_of_a_module_without_names_are_told_by_its_attributes(self):
        class Layer(tf.Module):
            def __init__(self):
                super().__init__()
                self.w = tf.Variable(0.0)

        class Net(tf.Module):
            def __init__(self):
                super().__init__()
                self.layers = [Layer(), Layer()]
                self.head = Layer()
                self.scale = tf.Variable(0.0)

        net = Net()
        grads = [tf.constant(1.0)] * len(net.trainable_variables)
        keys = self.keys(grads, net, scope="per_layer")
        assert sorted(keys) == [
            ("layer", "head"), ("layer", "layers/0"), ("layer", "layers/1"), ("layer", "root"),
        ]  # fmt: skip

    def test_only_groups_with_a_gradient_are_reported(self):
        variables = [tf.Variable(0.0) for _ in range(3)]
        grads = [tf.constant(1.0), None, tf.constant(2.0)]
        keys = self.keys(grads, variables, scope="per_param")
        assert keys == [("param", "0"), ("param", "2")]

    def test_agc_per_unit_equals_optax(self):
        optax = pytest.importorskip("optax")
        rng = np.random.default_rng(3)
        shapes = [(6, 4), (3, 3, 4, 5), (4,), (5, 2, 3)]
        weights = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        grads = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        rule = optax.adaptive_grad_clip(0.5)
        expected, _ = rule.update(grads, rule.init(weights), weights)
        clipper = clipping.AGC(clipping=0.5, scope="per_unit", exclude_bias_bn=False)
        found = sc_tf.apply_grads(
            [tf.constant(g) for g in grads], [tf.Variable(w) for w in weights], clipper
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.usefixtures("op_by_op")
class TestEvents:
    def test_a_step_is_a_span(self):
        clipper = halving()
        with telemetry.context(run="r1"), capture(telemetry.ALL) as events:
            clip(tf.constant([3.0, 4.0]), clipper=clipper)
        assert [event.event[-1] for event in events] == ["start", "group", "stop"]
        start, group, stop = events
        about = {"algo": "autoclip", "scope": "global", "backend": "tensorflow", "dry_run": False}
        assert start.metadata.items() >= about.items()
        assert stop.metadata.items() >= (about | {"outcome": "applied", "run": "r1"}).items()
        assert "clipper_step" not in stop.metadata
        measured = dict(stop.measurements)
        assert measured.pop("duration") > 0
        assert measured.pop("monotonic_time") > 0
        assert measured == {
            "grad_norm": 5.0,
            "clipped_grad_norm": pytest.approx(1.0),
            "scale": pytest.approx(0.2),
            "groups": 1,
            "groups_clipped": 1,
            "threshold": pytest.approx(1.0),
        }
        assert group.measurements["clipped"] is True

    def test_units_are_reported_as_arrays(self):
        clipper = clipping.AGC(clipping=1.0, scope="per_unit")
        weights = tf.Variable([[3.0, 1.0], [4.0, 0.0]])
        seen = []
        with capture((*CLIP, "group")) as events:
            sc_tf.apply_grads([tf.fill((2, 2), 3.0)], [weights], clipper, seen.append)
        (event,) = events
        np.testing.assert_allclose(event.measurements["weight_norm"], [5.0, 1.0])
        assert seen[0]["clipped"] == [False, True]

    def test_on_an_accelerator_nothing_is_read(self, monkeypatch):
        """A CPU that is taken for a device whose values are not to be waited for."""
        monkeypatch.setattr(backend, "on_cpu", lambda tensor: False)
        clippers = halving(), halving()
        with capture(telemetry.ALL) as events:
            clip(tf.constant([3.0, 4.0]), clipper=clippers[0])
            clip(tf.constant([np.nan]), clipper=clippers[1])
            clipping.deferred.settle_all()
        stops = [event for event in events if event.event[-1] == "stop"]
        assert isinstance(stops[0].measurements["grad_norm"], tf.Tensor)
        assert float(stops[0].measurements["clipped_grad_norm"]) == pytest.approx(1.0)
        assert "outcome" not in stops[0].metadata
        (nonfinite,) = [event for event in events if event.event[-1] == "nonfinite"]
        assert nonfinite.metadata["keys"] == (("global",),)

    @pytest.mark.parametrize("scope", ["per_param", "per_unit"])
    def test_on_an_accelerator_the_same_is_reported(self, monkeypatch, scope):
        def events():
            clipper = clipping.AGC(clipping=0.1, scope=scope, exclude_bias_bn=False)
            weights = [
                tf.Variable([[3.0, 1.0], [4.0, 0.0]]),
                tf.Variable([2.0]),
                tf.Variable([1.0]),
            ]
            grads = [tf.fill((2, 2), 0.3), tf.constant([0.1]), None]
            with capture((*CLIP, "stop"), (*CLIP, "group")) as captured:
                sc_tf.apply_grads(grads, weights, clipper)
            return captured

        here = events()
        monkeypatch.setattr(backend, "on_cpu", lambda tensor: False)
        there = events()
        assert len(here) == len(there) == 3
        for ours, theirs in zip(there, here, strict=True):
            assert ours.metadata.get("key") == theirs.metadata.get("key")
            for name in theirs.measurements.keys() - {"duration", "monotonic_time"}:
                expected = theirs.measurements[name]
                np.testing.assert_allclose(ours.measurements[name], expected, rtol=1e-6)

    def test_a_raising_callback_is_announced(self):
        with capture(("telemetry", "handler", "failure")) as events:
            (clipped,) = clip(
                tf.constant([3.0, 4.0]), clipper=halving(), on_metrics=lambda r: 1 / 0
            )
        np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
        assert len(events) == 1


class TestState:
    def test_the_state_is_json_and_goes_on_bit_identically(self):
        rng = np.random.default_rng(5)
        steps = [
            tf.constant(rng.standard_normal(3), tf.float32) * s for s in rng.lognormal(size=30)
        ]
        weight = tf.Variable(tf.zeros(3))

        def make():
            return clipping.AutoClip(window_size=8, warmup_steps=2, min_history=2)

        whole, first, second = make(), make(), make()
        expected = [sc_tf.apply_grads([g], [weight], whole)[0] for g in steps]
        found = [sc_tf.apply_grads([g], [weight], first)[0] for g in steps[:15]]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        found += [sc_tf.apply_grads([g], [weight], second)[0] for g in steps[15:]]
        np.testing.assert_array_equal(found, expected)
        assert second.state_dict() == whole.state_dict()
        assert any(
            (f.numpy() != g.numpy()).any() for f, g in zip(found[15:], steps[15:], strict=True)
        )

    @pytest.mark.usefixtures("op_by_op")
    def test_a_history_moves_between_frameworks(self):
        clipper = halving()
        clip(tf.constant([2.0]), clipper=clipper)
        clipping.numpy.apply_grads(np.array([3.0]), np.zeros(1), clipper)
        clip(tf.constant([4.0]), clipper=clipper)
        assert clipper.state_dict()["norms"] == [[1.0, 2.0, 3.0, 4.0]]

    @pytest.mark.usefixtures("op_by_op")
    def test_a_copy_goes_its_own_way(self):
        clipper = halving()
        clip(tf.constant([2.0]), clipper=clipper)
        twin = copy.deepcopy(clipper)
        clip(tf.constant([3.0]), clipper=twin)
        assert clipper.state_dict()["norms"] == [[1.0, 2.0]]
        assert twin.state_dict()["norms"] == [[1.0, 2.0, 3.0]]
        twin.load_state_dict(clipper.state_dict())
        clip(tf.constant([5.0]), clipper=twin)
        assert twin.state_dict()["norms"] == [[1.0, 2.0, 5.0]]

    @pytest.mark.usefixtures("op_by_op")
    def test_a_checkpoint_of_tensorflow_holds_the_variables(self, tmp_path):
        weight = tf.Variable([0.0])

        def tracked(clipper):
            module = tf.Module()
            module.clipper = sc_tf.variables(clipper, [weight])
            return tf.train.Checkpoint(clipper=module)

        saved, loaded = halving(), halving()
        sc_tf.apply_grads([tf.constant([2.0])], [weight], saved)
        path = tracked(saved).save(str(tmp_path / "checkpoint"))
        tracked(loaded).restore(path).assert_consumed()
        assert loaded.state_dict() == saved.state_dict()

    @pytest.mark.usefixtures("op_by_op")
    def test_a_clipper_that_is_forgotten_leaves_nothing_behind(self):
        import gc
        import weakref

        clipper = halving()
        clip(tf.constant([2.0]), clipper=clipper)
        gone = weakref.ref(clipper)
        del clipper
        gc.collect()
        assert gone() is None


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

    def test_another_model_is_refused(self):
        clipper = clipping.AutoClip(scope="per_param")
        clip(GRADIENT, clipper=clipper)
        with pytest.raises(ValueError, match=r"Use one clipper per model"):
            clip(GRADIENT, GRADIENT, clipper=clipper)
        clip(GRADIENT, clipper=clipper)
        assert clipper.state_dict()["steps"] == 2

    def test_other_units_are_refused(self):
        clipper = clipping.AGC(scope="per_unit")
        clip(tf.ones((2, 3)), clipper=clipper)
        with pytest.raises(ValueError, match=r"are of 3 units, the gradients of 4"):
            clip(tf.ones((2, 4)), clipper=clipper)

    def test_a_clipper_that_is_none_is_refused(self):
        with pytest.raises(TypeError, match=r"write clipping.AutoClip\(\)"):
            sc_tf.apply_grads([GRADIENT], [tf.Variable([0.0, 0.0])], clipping.AutoClip)

    def test_a_callback_that_is_none_is_refused(self):
        with pytest.raises(TypeError, match=r"on_metrics must be a function"):
            clip(GRADIENT, clipper=clipping.AutoClip(), on_metrics=3)

    def test_without_tensorflow_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "clipping.tensorflow")
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(telemetry.MissingExtraError, match=r"'trainbus\[tensorflow\]'"):
            __import__("clipping.tensorflow")
