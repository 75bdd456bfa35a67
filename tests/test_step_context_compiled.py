"""The same where the work is done by compiled code, and what it measures is known later."""

from collections import Counter

import numpy as np
import pytest

import clipping
import regularizers
import telemetry
from regularizers import RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

KEYS = ("run_id", "attempt", "epoch", "step")
STEP = ["training.step", "training.timing"]
SPECS = [RegularizerSpec(penalties.l1, 0.1, "l1")]


@pytest.fixture
def run():
    with capture() as events, telemetry.workflow_run("test", run_id="r1", attempt=2):
        yield events


def by_place(events):
    places = {}
    for event in events:
        name = ".".join(event.event)
        if not name.startswith("workflow."):
            place = tuple(event.metadata.get(key) for key in KEYS)
            places.setdefault(place, Counter())[name] += 1
    return places


def expected(steps, names):
    return {("r1", 2, epoch, step): Counter(names) for epoch, step in steps}


def base(data, logprobs):
    return (data * logprobs).sum()


def tensorflow_base(data, logprobs):
    import tensorflow as tf

    return tf.reduce_sum(data * logprobs)


def test_a_jax_loop_whose_step_is_compiled(run):
    import jax
    import optax

    optimizer = optax.chain(clipping.jax.transformation(clipping.AutoClip()), optax.sgd(0.1))

    def loss_of(params, batch):
        output = custom_loss(batch, params, base, regularizers=SPECS)
        return output.loss, output

    @jax.jit
    def train(params, state, batch):
        gradients, output = jax.grad(loss_of, has_aux=True)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, output

    params = jax.numpy.ones(3)
    state = optimizer.init(params)
    for epoch in (1, 2):
        for batch in telemetry.track(np.ones((2, 3), np.float32), epoch=epoch, total_epochs=2):
            params, state, output = train(params, state, batch)
            regularizers.emit(output)
            clipping.jax.emit(state)
            telemetry.emit_step(loss=output.loss)
    names = [
        "smartclip.clip.group",
        "smartclip.clip.stop",
        "regularizer.compute.stop",
        "custom_loss.stop",
        *STEP,
    ]
    assert by_place(run) == expected([(1, 1), (1, 2), (2, 3), (2, 4)], names)


@pytest.mark.parametrize("parallel", [False, True])
def test_a_jax_loop_that_is_eager(run, parallel):
    import jax

    params, clipper = jax.numpy.ones(3), clipping.AutoClip()
    for batch in telemetry.track(np.ones((2, 3), np.float32), epoch=1):
        custom_loss(batch, params, base, regularizers=SPECS, parallel=parallel)
        clipping.jax.apply_grads(jax.grad(base, argnums=1)(batch, params), params, clipper)
        telemetry.emit_step(loss=1.0)
    names = [
        *("smartclip.clip.start", "smartclip.clip.group", "smartclip.clip.stop"),
        *("regularizer.compute.start", "regularizer.compute.stop"),
        *("custom_loss.start", "custom_loss.stop"),
        *STEP,
    ]
    assert by_place(run) == expected([(1, 1), (1, 2)], names)


def test_what_a_device_says_later_is_said_of_the_step_that_it_is_of(run):
    import jax

    @jax.jit
    def slow(number):
        """A gradient that is not there yet when its step is over."""
        start = jax.numpy.eye(500) * number
        return jax.lax.fori_loop(0, 40, lambda _, x: x @ x, start)[0, :3]

    clip = clipping.jax.transformation(clipping.AutoClip())
    state, update = clip.init(jax.numpy.ones(3)), jax.jit(clip.update)
    for number in telemetry.track([1.0, np.nan], epoch=1):  # the first one waits for the compiler
        _, state = update(slow(number), state)
        clipping.jax.emit(state)
    with telemetry.context(step=99):
        clipping.deferred.settle_all()
    (event,) = [event for event in run if event.event[-1] == "nonfinite"]
    assert tuple(event.metadata[key] for key in KEYS) == ("r1", 2, 1, 2)


def test_a_tensorflow_loop_whose_step_is_compiled(run):
    import tensorflow as tf

    weight, clipper = tf.Variable([1.0, 1.0, 1.0]), clipping.AutoClip()

    @tf.function
    def train(batch):
        with tf.GradientTape() as tape:
            output = custom_loss(batch, tf.identity(weight), tensorflow_base, regularizers=SPECS)
        gradients = tape.gradient(output.loss, [weight])
        (gradient,) = clipping.tensorflow.apply_grads(gradients, [weight], clipper)
        weight.assign_sub(0.1 * gradient)
        return output

    for epoch in (1, 2):
        for batch in telemetry.track(tf.ones((2, 3)), epoch=epoch, total_epochs=2):
            output = train(batch)
            regularizers.emit(output)
            clipping.tensorflow.emit(clipper)
            telemetry.emit_step(loss=output.loss)
    names = [
        "smartclip.clip.group",
        "smartclip.clip.stop",
        "regularizer.compute.stop",
        "custom_loss.stop",
        *STEP,
    ]
    assert by_place(run) == expected([(1, 1), (1, 2), (2, 3), (2, 4)], names)


def test_a_tensorflow_loop_that_is_eager(run):
    import tensorflow as tf

    weight, clipper = tf.Variable([1.0, 1.0, 1.0]), clipping.AutoClip()
    data = tf.data.Dataset.from_tensor_slices(tf.ones((4, 3))).batch(2)
    for batch in telemetry.track(data, epoch=1):
        with tf.GradientTape() as tape:
            output = custom_loss(batch, tf.identity(weight), tensorflow_base, regularizers=SPECS)
        gradients = tape.gradient(output.loss, [weight])
        clipping.tensorflow.apply_grads(gradients, [weight], clipper)
        telemetry.emit_step(loss=output.loss)
    names = [
        *("smartclip.clip.start", "smartclip.clip.group", "smartclip.clip.stop"),
        *("regularizer.compute.start", "regularizer.compute.stop"),
        *("custom_loss.start", "custom_loss.stop"),
        *STEP,
    ]
    assert by_place(run) == expected([(1, 1), (1, 2)], names)
    sizes = [
        event.measurements["batch_size"] for event in run if event.event == ("training", "timing")
    ]
    assert sizes == [2, 2]
