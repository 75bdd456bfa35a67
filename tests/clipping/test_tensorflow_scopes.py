"""What forms a group of TensorFlow variables, and how layers are told apart."""

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported

CLIP = ("smartclip", "clip")


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

    def test_layers_of_one_name_in_a_module_are_told_by_its_attributes(self):
        class Dense(tf.Module):
            def __init__(self):
                super().__init__(name="dense")
                with self.name_scope:
                    self.b = tf.Variable(tf.ones(2), name="b")
                    self.w = tf.Variable(tf.ones((2, 2)), name="w")

        class Net(tf.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = Dense(), Dense()
                self.head = tf.Variable(1.0, name="head/w")

        net = Net()
        names = [v.name for v in net.trainable_variables]
        assert names.count("dense/w:0") == names.count("dense/b:0") == 2
        grads = [tf.ones(v.shape) for v in net.trainable_variables]
        assert sorted(self.keys(grads, net, scope="per_layer")) == [
            ("layer", "first"), ("layer", "head"), ("layer", "second"),
        ]  # fmt: skip

    def test_one_of_them_with_fewer_parameters_stays_whole_and_apart(self):
        class Dense(tf.Module):
            def __init__(self, *names):
                super().__init__(name="dense")
                with self.name_scope:
                    self.parts = {name: tf.Variable(1.0, name=name) for name in names}

        class Net(tf.Module):
            def __init__(self):
                super().__init__()
                self.large, self.small = Dense("b", "w"), Dense("w")

        keys = self.keys([tf.constant(1.0)] * 3, Net(), scope="per_layer")
        assert keys == [("layer", "large/parts"), ("layer", "small/parts")]

    def test_layers_of_one_name_in_two_models_of_keras_are_told_by_these(self):
        keras = pytest.importorskip("keras")

        def tower(name):
            x = keras.Input((2,))
            y = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones", name="out")(x)
            return keras.Model(x, y, name=name)

        x = keras.Input((2,))
        model = keras.Model(x, tower("a")(x) + tower("b")(x))
        assert [v.path for v in model.trainable_variables] == ["out/kernel"] * 2
        grads = [tf.fill((2, 2), 100.0), tf.ones((2, 2))]
        assert self.keys(grads, model, scope="per_layer") == [
            ("layer", "a/out"),
            ("layer", "b/out"),
        ]
        large, small = sc_tf.apply_grads(
            grads, model, clipping.AGC(clipping=1.0, scope="per_layer")
        )
        np.testing.assert_allclose(large, np.ones((2, 2)), rtol=1e-6)  # as large as the weights
        np.testing.assert_array_equal(small, np.ones((2, 2)))

    def test_layers_of_one_name_in_one_layer_of_keras_are_numbered(self):
        keras = pytest.importorskip("keras")

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.towers = [keras.layers.Dense(1, name="out") for _ in range(3)]

            def build(self, shape):
                for tower in self.towers:
                    tower.build(shape)

        model = Net()
        model.build((None, 2))
        assert len({v.path for v in model.trainable_variables}) == 2
        grads = [tf.ones(v.shape) for v in model.trainable_variables]
        keys = self.keys(grads, model, scope="per_layer")
        assert keys == [("layer", "out"), ("layer", "out#2"), ("layer", "out#3")]

    def test_layers_of_one_name_without_an_owner_are_numbered(self):
        names = ["dense/w", "dense/b", "dense/w", "dense/b", "out/w", "dense/b"]
        variables = [tf.Variable(0.0, name=name) for name in names]
        keys = self.keys([tf.constant(1.0)] * 6, variables, scope="per_layer")
        assert keys == [
            ("layer", "dense"), ("layer", "dense#2"), ("layer", "out"), ("layer", "dense#3"),
        ]  # fmt: skip

    def test_variables_without_names_are_in_root(self):
        variables = [tf.Variable(0.0), tf.Variable(0.0)]
        assert variables[0].name == variables[1].name
        keys = self.keys([tf.constant(1.0)] * 2, variables, scope="per_layer")
        assert keys == [("layer", "root")]

    def test_parameters_in_a_dictionary_are_counted_by_their_sorted_keys(self):
        """The NumPy backend counts them in the order in which they were put in."""
        weights = {"b": tf.Variable(0.0), "a": tf.Variable(0.0)}
        grads = {"b": tf.constant(1.0), "a": None}
        assert self.keys(grads, weights, scope="per_param") == [("param", "1")]
        with capture((*CLIP, "group")) as events:
            clipping.numpy.apply_grads(
                {"b": np.ones(1), "a": None},
                {"b": np.zeros(1), "a": np.zeros(1)},
                clipping.AutoClip(scope="per_param"),
            )
        assert [event.metadata["key"] for event in events] == [("param", "0")]

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
