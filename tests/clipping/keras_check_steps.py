"""Steps equal those of the reference, however they are run."""

import keras
import numpy as np
from keras_checking import check, close
from keras_models import (
    BATCH,
    GROUP,
    INPUTS,
    NONFINITE,
    STOP,
    TARGETS,
    Percentile,
    first_fit,
    fit,
    linear,
    percentile,
    reference,
)

from telemetry.testing import capture


@check()
def thirty_steps_equal_a_hand_written_loop():
    clip, expected, model, events = first_fit()
    assert clip.clipped > 5
    close(model, expected)
    stops = [e.metadata for e in events if e.event == STOP]
    assert [about["clipper_step"] for about in stops] == list(range(1, 31))
    outcomes = [about["outcome"] for about in stops]
    assert outcomes.count("applied") == clip.clipped
    assert outcomes.count("unclipped") == 30 - clip.clipped


@check("tensorflow", "jax")
def steps_are_the_same_however_they_are_run():
    expected, end = reference(Percentile(), steps=8), 8 * BATCH
    kinds = [{"run_eagerly": True}]
    if keras.backend.backend() == "tensorflow":  # jax compiles anyway
        kinds += [{"jit_compile": True}]
    for options in kinds:
        model = linear(**options)
        fit(model, percentile(), inputs=INPUTS[:end], targets=TARGETS[:end])
        close(model, expected)


@check()
def accumulated_gradient_is_clipped_in_the_step_that_steps():
    """One that is not finite is not in the next sum."""
    inputs, clip = INPUTS.copy(), Percentile()
    inputs[4 * BATCH] = np.nan
    expected = reference(clip, accumulate=3, inputs=inputs)
    assert clip.clipped > 0
    clipper = percentile()
    model = linear(keras.optimizers.SGD(0.05, gradient_accumulation_steps=3))
    with capture(STOP, NONFINITE) as events:
        fit(model, clipper, inputs=inputs)
    close(model, expected)
    assert [e.event for e in events] == [STOP, NONFINITE] + [STOP] * 9
    stops = [e for e in events if e.event == STOP]
    assert [e.metadata["step"] for e in stops] == list(range(1, 11))
    assert clipper.state_dict()["steps"] == 10
    norms = [clip.norms[0], np.nan, *clip.norms[1:]]
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in stops], norms, rtol=1e-5)


@check("jax")
def gradient_of_all_devices_is_clipped():
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        fit(model := linear(), percentile())
        assert len(model.get_layer("only").kernel.value.devices()) == 2
        close(model, first_fit()[1])
    finally:
        keras.distribution.set_distribution(None)


@check("torch", "jax")
def weight_decay_is_not_clipped():
    expected = reference(Percentile(), l2=0.1)
    model = linear(keras.optimizers.SGD(0.05, weight_decay=0.1))
    fit(model, percentile())
    close(model, expected)


@check()
def unscaled_gradients_are_clipped_under_a_loss_scale():
    clip = Percentile()
    expected = reference(clip)
    inner = keras.optimizers.SGD(0.05)
    model = linear(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**10))
    with capture(STOP) as events:
        fit(model, percentile())
    close(model, expected)
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], clip.norms, rtol=1e-5)


@check("torch")
def fixed_loss_scale_is_taken_out_before():
    model = linear(keras.optimizers.SGD(0.05, loss_scale_factor=2.0**10))
    fit(model, percentile())
    close(model, first_fit()[1])


@check()
def step_that_overflowed_in_half_precision_is_none():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = linear(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), 2.0**22))
    finally:
        keras.config.set_dtype_policy("float32")
    clipper = percentile()
    with capture(("smartclip", "**")) as events:
        fit(model, clipper)
    steps = int(model.optimizer.iterations.numpy())
    assert 15 < steps < 30
    assert [e.event for e in events] == [GROUP, STOP] * steps
    assert clipper.state_dict()["steps"] == steps
    assert max(e.measurements["grad_norm"] for e in events) < 10


@check()
def half_precision_rounds_neither_norms_nor_factors():
    """Squares of the last gradient exceed float16, and the factor 2**-26 is 0 in it."""
    layer = keras.layers.Dense(3, kernel_initializer="zeros", dtype="float16")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: keras.ops.sum(y * p, axis=-1))
    targets = np.full((6, 3), 2.0**-13, "float32")
    targets[5] = 2.0**13
    inputs = np.ones((6, 4), "float32")
    with capture(STOP) as events:
        fit(model, percentile(), inputs=inputs, targets=targets, batch_size=1)
    assert [v.dtype for v in model.trainable_variables] == ["float16"] * 2
    norm = events[-1].measurements["grad_norm"]
    np.testing.assert_allclose(norm, 2.0**13 * np.sqrt(15), rtol=1e-5)
    for weights in model.get_weights():
        np.testing.assert_array_equal(weights, np.full_like(weights, -6 * 2.0**-13))


@check("torch")
def dry_run_leaves_the_gradients_alone():
    plain, dry = linear(), linear()
    plain.fit(INPUTS, TARGETS, batch_size=BATCH, shuffle=False, verbose=0)
    with capture(STOP) as events:
        fit(dry, percentile(dry_run=True))
    close(dry, plain.get_weights())
    assert min(e.measurements["scale"] for e in events) < 1
    assert all(e.metadata["dry_run"] for e in events)
