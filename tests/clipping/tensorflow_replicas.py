"""What `test_tensorflow_replicas` looks at; prints one line of JSON."""

import json
import math

import numpy as np
import tensorflow as tf

import clipping
import clipping.tensorflow as sc_tf
from telemetry.testing import capture

STEPS = 12
CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras  # noqa: E402 -- it starts TensorFlow


def batches(name):
    rng = np.random.default_rng(4)
    for step in range(STEPS):
        if name == "sparse":
            x = rng.integers(0, 5, (8, 3)).astype(np.int32)
        else:
            x = rng.standard_normal((8, 3)).astype(np.float32)
        y = rng.standard_normal((8, 1)).astype(np.float32) * (10 if step in (6, 9) else 1)
        yield x, y


def model_of(name):
    layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
    if name == "sparse":
        layers = [keras.layers.Embedding(5, 4), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.standard_normal(variable.shape) * 0.3)
    return model


def clipper_of(name):
    if name == "agc":
        return clipping.AGC(clipping=0.3)
    return clipping.AutoClip(warmup_steps=2, min_history=2, window_size=8)


def train(name, strategy):
    with strategy.scope():
        model, optimizer, clipper = model_of(name), keras.optimizers.SGD(0.05), clipper_of(name)
        optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / 8
        grads = tape.gradient(loss, model.trainable_variables)
        if name == "sparse":
            assert any(isinstance(g, tf.IndexedSlices) for g in grads)
        grads = sc_tf.apply_grads(grads, model, clipper)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    @tf.function(autograph=False)
    def distributed(x, y):
        strategy.run(step, args=(x, y))

    count = strategy.num_replicas_in_sync
    norms, thresholds, clipped, states = [], [], [], []
    for x, y in batches(name):
        distributed(*(spread(strategy, np.split(array, count)) for array in (x, y)))
        with capture(("smartclip", "clip", "stop")) as events:
            sc_tf.emit(clipper)
        norms.append(events[0].measurements["grad_norm"])
        clipped.append(events[0].measurements["groups_clipped"])
        threshold = clipper.threshold_any()
        thresholds.append(threshold if math.isfinite(threshold) else -1)
        states.append(clipper.state_dict())
    found = {
        "weights": [v.numpy().ravel().tolist() for v in model.trainable_variables],
        "norms": norms,
        "thresholds": thresholds,
        "clipped": clipped,
        "steps": states[-1]["steps"],
        "whole": states[-1],
    }
    clipper.load_state_dict(states[5])
    clipper.load_state_dict(states[-1])
    return found | {"resumed": clipper.state_dict()}


def spread(strategy, parts):
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(parts[0])
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )


def clip_in_replicas(clipper, gradients, *, graph):
    with STRATEGY.scope():
        weight = tf.Variable([0.0, 0.0])

    def step(gradient):
        return sc_tf.apply_grads([gradient], [weight], clipper)[0]

    def distributed(gradient):
        return STRATEGY.run(step, args=(gradient,))

    function = tf.function(distributed, autograph=False) if graph else distributed
    result = function(spread(STRATEGY, [np.array(g, np.float32) for g in gradients]))
    return [part.numpy().tolist() for part in STRATEGY.experimental_local_results(result)]


def halving():
    clipper = clipping.AutoClip(
        mode="percentile", percentile=1e-9, history="window", warmup_steps=0, min_history=1
    )
    clipping.numpy.apply_grads(np.array([1.0]), np.zeros(1), clipper)
    return clipper


def nonfinite():
    clipper = halving()
    gradients = clip_in_replicas(clipper, [[1.0, 2.0], [np.nan, 1.0]], graph=True)
    with capture(("smartclip", "clip", "nonfinite")) as events:
        sc_tf.emit(clipper)
    return {"gradients": gradients, "events": len(events)}


def message_of(act):
    try:
        act()
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def outside():
    clipper = clipping.AutoClip()
    sc_tf.apply_grads([tf.ones(2)], [tf.Variable([0.0, 0.0])], clipper)
    return message_of(lambda: clip_in_replicas(clipper, [[1.0, 2.0]] * 2, graph=True))


def made_before():
    clipper = clipping.AutoClip()
    with STRATEGY.scope():
        sc_tf.variables(clipper, [tf.Variable([0.0, 0.0])])
    clip_in_replicas(clipper, [[1.0, 2.0]] * 2, graph=True)
    return clipper.state_dict()["steps"]


def devices():
    grads = []
    for place in ("CPU:0", "CPU:1"):
        with tf.device(place):
            grads.append(tf.identity(tf.ones(2)))
    weights = [tf.Variable([0.0, 0.0]), tf.Variable([0.0, 0.0])]
    return message_of(lambda: sc_tf.apply_grads(grads, weights, clipping.AutoClip()))


if __name__ == "__main__":
    default = tf.distribute.get_strategy()
    found = {
        name: [train(name, s) for s in (STRATEGY, default)] for name in ("dense", "sparse", "agc")
    }
    found |= {
        "nonfinite": nonfinite(),
        "eager": clip_in_replicas(halving(), [[1.0, 0.0], [2.0, 4.0]], graph=False),
        "outside": outside(),
        "made_before": made_before(),
        "devices": devices(),
    }
    print(json.dumps(found))
