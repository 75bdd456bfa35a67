"""Which gradients belong together, and what is compiled for them."""

import warnings

import keras
import numpy as np
from keras_checking import check, close
from keras_models import (
    BATCH,
    GROUP,
    INPUTS,
    STEPS,
    TARGETS,
    Percentile,
    deep,
    fit,
    linear,
    percentile,
    reference,
)

import clipping
from telemetry.testing import capture


@check()
def every_parameter_has_a_history_of_its_own():
    clips = [Percentile(), Percentile()]

    def clip(gradients, _parameters):
        factors = [c.factor(np.linalg.norm(g)) for c, g in zip(clips, gradients, strict=True)]
        return [g * f for g, f in zip(gradients, factors, strict=True)]

    expected, clipper, model = reference(clip), percentile(scope="per_param"), linear()
    found, kind = [], keras.backend.backend()
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: found.append(compiled(model, kind))
    )
    with capture(GROUP) as events:
        fit(model, clipper, *([] if kind == "torch" else [look]))
    close(model, expected)
    for step in found:  # which calls nothing back
        assert any(word in step for word in ("sort", "TopK"))  # the quantile is in there
        assert not any(word in step.lower() for word in ("callback", "pyfunc"))
    assert [e.metadata["key"] for e in events[:2]] == [("param", "0"), ("param", "1")]
    norms = [e.measurements["grad_norm"] for e in events if e.metadata["key"] == ("param", "1")]
    np.testing.assert_allclose(norms, clips[1].norms, rtol=1e-5)


@check()
def layers_are_named_without_the_model():
    if keras.backend.backend() == "torch":
        clipper = percentile(scope="per_layer")
        fit(deep(), clipper)
        assert clipper.state_dict()["keys"] == [["layer", "a"], ["layer", "b"]]
    unbuilt = keras.Sequential([keras.layers.Dense(5, name="x"), keras.layers.Dense(3, name="y")])
    unbuilt.compile("sgd", loss="mse")
    clipper = percentile(scope="per_layer")
    fit(unbuilt, clipper)
    assert clipper.state_dict()["keys"] == [["layer", "x"], ["layer", "y"]]
    assert clipper.state_dict()["steps"] == 30


@check("torch", "jax")
def layers_of_one_path_are_told_apart_by_their_models():
    one, two = keras.Input((4,)), keras.Input((3,))
    encoder = keras.Model(one, keras.layers.Dense(3, name="fc")(one), name="enc")
    decoder = keras.Model(two, keras.layers.Dense(3, name="fc")(two), name="dec")
    model = keras.Model(one, decoder(encoder(one)), name="top")
    assert [v.path for v in model.trainable_variables] == ["fc/kernel", "fc/bias"] * 2
    model.compile("sgd", loss="mse")
    clipper = percentile(scope="per_layer")
    fit(model, clipper)
    assert clipper.state_dict()["keys"] == [["layer", "enc/fc"], ["layer", "dec/fc"]]


@check("torch")
def layers_of_one_model_and_name_are_numbered():
    """Also if what they have is called differently, as a kernel and a scale."""

    class Twins(keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.one = keras.layers.Dense(3, name="x", use_bias=False)
            self.two = keras.layers.LayerNormalization(name="x", center=False)

        def call(self, inputs):
            return self.two(self.one(inputs))

    model = Twins()
    model.compile("sgd", loss="mse")
    clipper = percentile(scope="per_layer")
    fit(model, clipper)
    assert clipper.state_dict()["keys"] == [["layer", "x"], ["layer", "x#2"]]


@check()
def units_are_held_against_their_weights():
    clipped = []

    def clip(gradients, parameters):
        out = []
        for gradient, weight in zip(gradients, parameters, strict=True):
            axis = 0 if gradient.ndim == 2 else None
            norm = np.sqrt((gradient**2).sum(axis=axis, keepdims=True))
            target = np.maximum(np.sqrt((weight**2).sum(axis=axis, keepdims=True)), 0.3)
            factor = np.where(norm > target, target / np.maximum(norm, 1e-6), 1.0)
            clipped.append((factor < 1).sum())
            out.append(gradient * factor)
        return out

    expected = reference(clip)
    assert 0 < sum(clipped) < 30 * 4
    agc = clipping.AGC(clipping=1.0, eps=0.3, scope="per_unit", exclude_bias_bn=False)
    model = linear()
    with capture(GROUP) as events:
        fit(model, agc)
    close(model, expected)
    assert np.shape(events[0].measurements["weight_norm"]) == (3,)


@check("tensorflow", "torch")
def look_ups_of_one_embedding_are_added_up():
    tokens = np.random.default_rng(2).integers(0, 4, (STEPS * BATCH, 6))
    layers = [keras.layers.Embedding(11, 3, name="e"), keras.layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers])
    model.compile("sgd", loss="mse")
    table = model.get_weights()[0].astype(float)
    error = 2 * (table[tokens[:BATCH]].mean(axis=1) - TARGETS[:BATCH]) / (BATCH * 3)
    gradient = np.zeros_like(table)
    for row, tokens_of_row in zip(error, tokens[:BATCH], strict=True):
        for token in tokens_of_row:
            gradient[token] += row / 6
    for clipper in (percentile(), clipping.AGC(scope="per_unit")):
        table_before = model.get_weights()[0]
        model.set_weights([table.astype("float32")])
        with capture(GROUP) as events:
            fit(model, clipper, inputs=tokens)
        first = events[0].measurements["grad_norm"]
        expected = np.linalg.norm(gradient, axis=None if np.ndim(first) == 0 else 0)
        np.testing.assert_allclose(first, expected, rtol=1e-5)
        assert not np.array_equal(model.get_weights()[0], table_before)


@check("tensorflow", "torch")
def parameter_without_a_gradient_takes_no_part():
    """On JAX its gradient is 0."""

    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = keras.layers.Dense(3, name="used"), keras.layers.Dense(3)

        def build(self, shape):
            self.used.build(shape)
            self.idle.build(shape)

        def call(self, inputs):
            return self.used(inputs)

    model = Half()
    model.build((None, 4))
    model.compile("sgd", loss="mse")
    clipper = percentile(scope="per_layer")
    with capture(GROUP) as events, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gradients do not exist")
        fit(model, clipper)
    assert {e.metadata["key"] for e in events} == {("layer", "used")}
    assert clipper.state_dict()["counts"] == [30, 0]


def compiled(model, kind):
    data = (INPUTS[:BATCH], TARGETS[:BATCH])
    if kind == "jax":
        import jax

        model.optimizer.build(model.trainable_variables)
        keep = {"optimizer_variables": True, "metrics_variables": True}
        weights = {"trainable_variables": True, "non_trainable_variables": True}
        return str(jax.make_jaxpr(model.train_step)(model._get_jax_state(**keep, **weights), data))
    import tensorflow as tf

    graph = tf.function(model.train_step).get_concrete_function(
        tuple(map(tf.convert_to_tensor, data))
    )
    definition = graph.graph.as_graph_def()
    functions = [node for f in definition.library.function for node in f.node_def]
    return " ".join({node.op for node in (*definition.node, *functions)})
