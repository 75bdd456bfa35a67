"""The Keras callback. Keras fixes its backend when it is imported, so each has a process.

Run as a script, this file does the checks for the backend of ``KERAS_BACKEND``, and prints what
failed as JSON. A check that does not depend on the backend is done on torch alone, where nothing
has to be compiled.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from functools import cache

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

BACKENDS = ("tensorflow", "jax", "torch")
CHECKS = {}
NUMPY_2 = "__array__ implementation doesn't accept a copy keyword"


def check(*backends):
    """Add a check for some backends; for all if none is named."""

    def add(function):
        CHECKS[function] = backends or BACKENDS
        return function

    return add


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """What failed on each backend; torch comes first, and leaves a file for the others."""
    shared = str(tmp_path_factory.mktemp("shared"))
    return collected(["torch"], shared) | collected(["tensorflow", "jax"], shared)


def collected(backends, shared):
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "SHARED": shared}
    started = {
        backend: subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **quiet, **devices, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in backends
    }
    found = {}
    for backend, process in started.items():
        out, err = process.communicate()
        assert process.returncode == 0, err
        found[backend] = json.loads(out.splitlines()[-1])
    return found


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        pairs = [(check.__name__, b) for check, backends in CHECKS.items() for b in backends]
        metafunc.parametrize(("name", "backend"), pairs)


def test_callback(failures, name, backend):
    assert failures[backend][name] is None, failures[backend][name]


# What follows runs in the other processes.

STEPS, BATCH = 30, 8
INPUTS = np.random.default_rng(1).normal(size=(STEPS * BATCH, 4)).astype("float32")
TARGETS = np.random.default_rng(0).standard_t(2, size=(STEPS * BATCH, 3)).astype("float32")
STOP = ("smartclip", "clip", "stop")
GROUP = ("smartclip", "clip", "group")
NONFINITE = ("smartclip", "clip", "nonfinite")


def gradients(parameters, step, inputs):
    """Of the mean squared error of a linear layer with heavy-tailed targets."""
    inputs, targets = (
        x[step * BATCH : (step + 1) * BATCH].astype(float) for x in (inputs, TARGETS)
    )
    kernel, bias = parameters
    error = 2 * (inputs @ kernel + bias - targets) / targets.size
    return [inputs.T @ error, error.sum(axis=0)]


def reference(clip, *, lr=0.05, accumulate=1, l2=0.0, inputs=INPUTS, steps=STEPS):
    """Stochastic gradient descent; ``clip(gradients, parameters)`` gives new gradients."""
    parameters, waiting = [np.zeros((4, 3)), np.zeros(3)], []
    for step in range(steps):
        waiting.append(gradients(parameters, step, inputs))
        if len(waiting) == accumulate:
            mean = [np.mean(each, axis=0) for each in zip(*waiting, strict=True)]
            clipped = clip(mean, parameters)
            parameters = [
                p - lr * l2 * p - lr * g for p, g in zip(parameters, clipped, strict=True)
            ]
            waiting = []
    return parameters


class Percentile:
    """The 60th percentile of the last 10 norms, this one included, from the fourth step on.

    Gradients that are not finite become zeros.
    """

    def __init__(self):
        self.norms, self.steps, self.clipped = [], 0, 0

    def factor(self, norm):
        self.steps += 1
        if not np.isfinite(norm):
            return None
        self.norms.append(norm)
        threshold = np.percentile(self.norms[-10:], 60.0)
        if self.steps <= 3 or norm <= threshold:
            return 1.0
        self.clipped += 1
        return threshold / (norm + 1e-8)

    def __call__(self, gradients, _parameters):
        factor = self.factor(np.sqrt(sum((g**2).sum() for g in gradients)))
        return [np.zeros_like(g) if factor is None else g * factor for g in gradients]


def percentile(**options):
    defaults = {"percentile": 60.0, "history": "window", "window_size": 10}
    gates = {"warmup_steps": 3, "min_history": 2}
    return clipping.AutoClip(mode="percentile", **(defaults | gates | options))


def linear(optimizer=None, **options):
    layers = [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros", name="only")]
    model = keras.Sequential(layers, name="net")
    model.compile(optimizer or keras.optimizers.SGD(0.05), loss="mse", **options)
    return model


def deep():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, activation="tanh", name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss="mse")
    return model


def fit(model, clipper, *others, inputs=INPUTS, targets=TARGETS, on_metrics=None, **options):
    callbacks = [ClipCallback(clipper, on_metrics), *others]
    defaults = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    return model.fit(inputs, targets, callbacks=callbacks, **(defaults | options))


def close(model, expected):
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def same(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def refused(error, act):
    try:
        act()
    except error as refusal:
        return str(refusal)
    raise AssertionError("nothing was refused")


def interrupt(last):
    """A callback that ends a fit at the end of a batch."""

    def stop(batch, logs=None):
        if batch == last:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_train_batch_end=stop)


def interrupted(act):
    try:
        act()
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing was interrupted")


@cache
def first_fit():
    """A fit that several checks look at: the events, and what the reference did."""
    clip = Percentile()
    expected, model = reference(clip), linear()
    with capture(("smartclip", "**")) as events:
        fit(model, percentile())
    return clip, expected, model, events


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
def events_have_what_is_known_and_no_duration():
    clip, _, _, events = first_fit()
    assert [e.event for e in events] == [GROUP, STOP] * 30
    group, stop = events[-2:]
    threshold = np.percentile(clip.norms[-10:], 60.0)
    scale = min(1.0, threshold / clip.norms[-1])
    expected = {"grad_norm": clip.norms[-1], "threshold": threshold, "scale": scale}
    totals = {
        "clipped_grad_norm": clip.norms[-1] * scale,
        "groups": 1,
        "groups_clipped": int(scale < 1),
    }
    about = {"algo": "autoclip", "scope": "global", "step": 29, "epoch": 0, "clipper_step": 30}
    assert group.measurements == pytest.approx(expected | {"clipped": scale < 1}, rel=1e-5)
    assert group.metadata == about | {"key": ("global",)}
    assert stop.measurements == pytest.approx(expected | totals, rel=1e-5)
    outcome = "applied" if scale < 1 else "unclipped"
    backend = {"backend": keras.backend.backend(), "dry_run": False, "outcome": outcome}
    assert stop.metadata == about | backend
    assert {type(x) for x in stop.measurements.values()} == {float, int}


@check("torch")
def context_around_fit_wins():
    with capture(STOP) as events, telemetry.context(run="r", step=7):
        fit(linear(), percentile(), epochs=2)
    assert {(e.metadata["run"], e.metadata["step"]) for e in events} == {("r", 7)}
    assert [e.metadata["epoch"] for e in events] == [0] * 30 + [1] * 30


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
    assert [e.metadata["step"] for e in stops] == list(range(10))
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


@check("tensorflow", "jax")
def several_steps_per_execution_report_the_last():
    clip = Percentile()
    expected = reference(clip)
    clipper, model = percentile(), linear(steps_per_execution=4)
    with capture(STOP) as events:
        fit(model, clipper)
    close(model, expected)
    assert [e.metadata["clipper_step"] for e in events] == [4, 8, 12, 16, 20, 24, 28, 30]
    norms = [clip.norms[e.metadata["clipper_step"] - 1] for e in events]
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-5)


@check("tensorflow", "jax")
def several_steps_per_execution_report_non_finite_ones_wherever_they_are():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    with capture(NONFINITE, STOP) as events:
        fit(linear(steps_per_execution=4), percentile(), inputs=inputs)
    assert [e.event for e in events] == [STOP, NONFINITE] + [STOP] * 7
    assert np.isnan(events[1].measurements["grad_norm"])
    assert np.isfinite(events[2].measurements["grad_norm"])


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


@check()
def non_finite_gradients_leave_finite_weights_and_history():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    policies = ("skip", "zero") if keras.backend.backend() == "torch" else ("zero",)
    for policy in policies:
        clipper, model = percentile(scope="per_param", on_nonfinite=policy), linear()
        with capture(NONFINITE) as events:
            fit(model, clipper, inputs=inputs)
        (event,) = events
        assert event.measurements["count"] == 2
        assert event.metadata["keys"] == (("param", "0"), ("param", "1"))
        assert (event.metadata["policy"], event.metadata["clipper_step"]) == (policy, 6)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert np.isfinite(clipper.state_dict()["norms"]).all()


@check("torch")
def non_finite_gradients_go_through_if_asked():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    model = linear()
    fit(model, percentile(on_nonfinite="propagate"), inputs=inputs)
    assert not np.isfinite(model.get_weights()[0]).all()


@check()
def non_finite_gradients_raise_if_asked():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.inf
    clipper, model = percentile(on_nonfinite="raise"), linear()
    model.optimizer.build(model.trainable_variables)
    before = set(vars(model.optimizer))
    message = refused(FloatingPointError, lambda: fit(model, clipper, inputs=inputs))
    assert message == (
        "Gradients were not finite in 1 of 1 groups, [('global',)]: the model's gradient norm was "
        "nan. The step was made with zeros in place of all gradients; the history is untouched. "
        "on_nonfinite='raise' allows finite gradients only; to go on without such steps: "
        "on_nonfinite='skip'."
    )
    short = linear()
    fit(short, percentile(), inputs=INPUTS[: 5 * BATCH], targets=TARGETS[: 5 * BATCH])
    assert same(model, short)
    assert set(vars(model.optimizer)) <= before | {"clipper_state"}
    assert (clipper.state_dict()["steps"], clipper.state_dict()["counts"]) == (6, [5])


@check("torch")
def dry_run_leaves_the_gradients_alone():
    plain, dry = linear(), linear()
    plain.fit(INPUTS, TARGETS, batch_size=BATCH, shuffle=False, verbose=0)
    with capture(STOP) as events:
        fit(dry, percentile(dry_run=True))
    close(dry, plain.get_weights())
    assert min(e.measurements["scale"] for e in events) < 1
    assert all(e.metadata["dry_run"] for e in events)


@check()
def optimizer_and_model_are_left_as_they_were():
    model = linear(keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)
    attributes, variables = set(vars(model.optimizer)), model.optimizer.variables
    fit(model, percentile())
    assert set(vars(model.optimizer)) - attributes == {"clipper_state"}
    assert list(map(id, model.optimizer.variables)) == list(map(id, variables))
    plain = linear(keras.optimizers.Adam(0.01))
    plain.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert set(vars(model)) == set(vars(plain))
    with capture(("smartclip", "**")) as events:
        model.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert events == []


@check("tensorflow", "jax")
def fits_follow_each_other_each_with_its_own_clipper():
    """Of states of one shape, so that a step compiled for the first would do for the second."""
    model, expected = linear(), linear()
    fit(model, percentile(percentile=1.0))
    fit(model, clipper := percentile())
    fit(expected, percentile(percentile=1.0))
    expected.optimizer = keras.optimizers.SGD(0.05)
    expected.compile(expected.optimizer, loss="mse")
    fit(expected, percentile())
    assert same(model, expected)
    assert clipper.state_dict()["steps"] == 30


@check()
def state_continues_from_a_saved_model():
    through, clipper, seen = deep(), percentile(), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(clipper.state_dict()["steps"])
    )
    fit(through, clipper, look, epochs=2)
    assert seen == [30, 60]
    assert clipper.threshold_any() == clipper.state_dict()["thresholds"][0]
    first, half = deep(), percentile()
    fit(first, half)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        first.save(path)
        assert saved_state(path) == half.state_dict()
        loaded, resumed = keras.saving.load_model(path), percentile()
        resumed.load_state_dict(saved_state(path))
    assert resumed.state_dict() == half.state_dict()
    fit(loaded, resumed, epochs=2, initial_epoch=1)
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_in_another_process():
    """On another backend too: the first half on torch, the second on JAX."""
    path, half = f"{os.environ['SHARED']}/half.weights.h5", 15 * BATCH
    if keras.backend.backend() == "torch":
        fit(model := linear(), percentile(), inputs=INPUTS[:half], targets=TARGETS[:half])
        model.save_weights(path)
        return
    model, clipper = linear(), percentile()
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    clipper.load_state_dict(saved_state(path))
    fit(model, clipper, inputs=INPUTS[half:], targets=TARGETS[half:])
    close(model, first_fit()[1])
    assert clipper.state_dict()["steps"] == 30


@check("torch")
def state_continues_from_saved_weights():
    through, clipper = deep(), percentile(scope="per_layer")
    fit(through, clipper, epochs=2)
    first = deep()
    fit(first, percentile(scope="per_layer"))
    loaded, resumed = deep(), percentile(scope="per_layer")
    loaded.optimizer.build(loaded.trainable_variables)
    ClipCallback(resumed).set_model(loaded)
    with tempfile.TemporaryDirectory() as folder:
        first.save_weights(f"{folder}/m.weights.h5")
        loaded.load_weights(f"{folder}/m.weights.h5")
    fit(loaded, resumed, epochs=2, initial_epoch=1)
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_from_a_backup():
    through, clipper = deep(), percentile()
    fit(through, clipper, epochs=3)

    def stop(epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
        killer = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
        interrupted(lambda: fit(deep(), percentile(), backup, killer, epochs=3))
        for order in (1, -1):
            model, resumed = deep(), percentile()
            restored = f"{folder}/{order}"
            shutil.copytree(folder, restored, ignore=shutil.ignore_patterns("*1"))
            callbacks = [ClipCallback(resumed), keras.callbacks.BackupAndRestore(restored)]
            options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "epochs": 3}
            model.fit(INPUTS, TARGETS, callbacks=callbacks[::order], **options)
            assert same(model, through)
            assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_from_a_checkpoint_in_the_middle_of_an_epoch():
    through, clipper = deep(), percentile()
    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.ModelCheckpoint(f"{folder}/{{batch}}.keras", save_freq=7)
        fit(through, clipper, keep)
        path = f"{folder}/14.keras"
        loaded, resumed = keras.saving.load_model(path), percentile()
        resumed.load_state_dict(saved_state(path))
    assert resumed.state_dict()["steps"] == 14
    assert len(loaded.optimizer.variables) == 2 + 4
    fit(loaded, resumed, inputs=INPUTS[14 * BATCH :], targets=TARGETS[14 * BATCH :])
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch")
def file_without_a_state_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/plain.keras"
        linear().save(path)
        assert refused(ValueError, lambda: saved_state(path)) == (
            f"There is no clipper's state in {path!r}. Allowed: a file of a model that was fitted "
            "with a ClipCallback and saved with its optimizer."
        )
    assert refused(ValueError, lambda: saved_state("model.pt")) == (
        "path must end with '.keras' or '.weights.h5', got 'model.pt'."
    )


@check()
def fit_after_an_interrupted_one_is_clean():
    model, clipper = deep(), percentile()
    variables = len(model.optimizer.variables)
    interrupted(lambda: fit(model, clipper, interrupt(9)))
    with capture(("smartclip", "**")) as events:
        model.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert events == []
    assert clipper.state_dict()["steps"] == 10
    assert "_clip_gradients" not in vars(model.optimizer)
    assert len(model.optimizer.variables) <= variables + 4
    interrupted(lambda: fit(model, clipper, interrupt(9)))
    fit(model, clipper)
    assert clipper.state_dict()["steps"] == 50


@check()
def step_that_fails_costs_the_clipper_nothing():
    """Keras on JAX loses all variables then, the weights of the model among them."""
    model, clipper = linear(), percentile()
    fit(model, clipper)
    before = clipper.state_dict()
    refused(ValueError, lambda: fit(model, clipper, inputs=INPUTS[:, :3]))
    model.make_train_function()
    assert "_clip_gradients" not in vars(model.optimizer)
    assert clipper.state_dict() == before


@check("torch")
def state_loaded_during_a_fit_wins():
    clipper, other = percentile(), percentile()
    fit(linear(), other, inputs=INPUTS[: 5 * BATCH], targets=TARGETS[: 5 * BATCH])
    load = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: clipper.load_state_dict(other.state_dict())
    )
    fit(model := linear(), clipper, load, epochs=2)
    assert clipper.state_dict() == other.state_dict()
    fit(model, clipper)
    assert clipper.state_dict()["steps"] == 35


@check("torch")
def own_clipping_of_the_optimizer_is_refused():
    for option in ({"clipnorm": 1.0}, {"clipvalue": 0.5}, {"global_clipnorm": 2.0}):
        ((name, value),) = option.items()
        inner = keras.optimizers.SGD(0.1, **option)
        message = (
            f"SGD clips by itself ({name}={value}), on top of ClipCallback. Leave that out, or do "
            "without the callback."
        )
        for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner)):
            model = linear(optimizer)
            assert refused(ValueError, lambda m=model: fit(m, percentile())) == message
            assert all((w == 0).all() for w in model.get_weights())


@check("torch")
def second_callback_is_refused():
    model = linear()
    two = ClipCallback(percentile())
    assert refused(RuntimeError, lambda: fit(model, percentile(), two)) == (
        "A ClipCallback is active on this SGD, so its gradients would be clipped twice. "
        "Allowed: one in callbacks=[...]."
    )
    fit(model, clipper := percentile())
    assert clipper.state_dict()["steps"] == 30


@check("torch")
def several_optimizers_are_refused():
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    model = linear(keras.optimizers.MultiOptimizer(chosen))
    assert refused(ValueError, lambda: fit(model, percentile())) == (
        "ClipCallback clips for one optimizer, got MultiOptimizer. Allowed: a "
        "keras.optimizers.Optimizer that is no MultiOptimizer, or a LossScaleOptimizer of one."
    )


@check("torch")
def optimizer_that_never_asks_is_found_out():
    class Own(keras.optimizers.SGD):
        def _backend_apply_gradients(self, gradients, variables):
            self._backend_update_step(gradients, variables, self.learning_rate)

    assert refused(RuntimeError, lambda: fit(linear(Own(0.1)), percentile())) == (
        "Own steps without asking for its gradients to be clipped, so ClipCallback cannot. "
        "Allowed: Keras's optimizers, and subclasses that leave apply() as it is."
    )


@check()
def measurements_stay_on_a_device_that_is_not_the_cpu():
    """With a stand-in for the device: the CPU, taken for something else."""
    clip = Percentile()
    expected, model, records = reference(clip), linear(), []
    with pytest.MonkeyPatch.context() as patch, capture(("smartclip", "**")) as events:
        patch.setattr("clipping.integrations.keras_reading.on_cpu", lambda value: False)
        fit(model, percentile(), on_metrics=records.append)
    close(model, expected)
    assert [e.event for e in events] == [GROUP, STOP] * 30
    assert "outcome" not in events[-1].metadata
    assert [e.metadata["clipper_step"] for e in events[1::2]] == list(range(1, 31))
    found = [e.measurements["grad_norm"] for e in events[1::2]]
    assert not any(isinstance(norm, float) for norm in found)
    np.testing.assert_allclose([float(norm) for norm in found], clip.norms, rtol=1e-5)
    assert {type(record["grad_norm"]) for record in records} == {float}


@check("torch")
def training_step_of_its_own_inside_fit_is_found_out():
    model = linear()

    class Train(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.train_on_batch(INPUTS[:4], TARGETS[:4])

    message = refused(RuntimeError, lambda: fit(model, percentile(), Train()))
    assert message.startswith("Something in this fit has asked for a new training step")


@check("torch")
def model_that_does_not_fit_is_refused():
    model, clipper = linear(), percentile(scope="per_param")
    three = [np.ones(2)] * 3
    clipping.numpy.apply_grads(three, three, clipper)
    assert "history is of the groups" in refused(ValueError, lambda: fit(model, clipper))
    frozen = linear()
    frozen.trainable = False
    frozen.compile("sgd", loss="mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = refused(ValueError, lambda: fit(frozen, percentile()))
    assert message == (
        "Cannot clip a model without trainable variables, got 'net'. Add layers, or set "
        "trainable=True and compile again."
    )


@check("torch")
def mistakes_are_found_at_the_call():
    assert refused(TypeError, lambda: ClipCallback(3)).startswith("clipper must be a clipper")
    assert refused(TypeError, lambda: ClipCallback(on_metrics=3)).startswith("on_metrics must be")
    assert ClipCallback().clipper.mode == "auto"


@check("torch")
def on_metrics_gets_a_record_of_each_group():
    records = []
    with capture(GROUP) as events:
        fit(linear(), percentile(scope="per_param"), on_metrics=records.append)
    for record, event in zip(records, events, strict=True):
        assert record == {k: event.metadata[k] for k in ("algo", "key", "scope")} | dict(
            event.measurements
        )
        assert {type(record[k]) for k in ("grad_norm", "threshold", "scale")} == {float}
        assert type(record["clipped"]) is bool


@check("torch")
def on_metrics_that_raises_is_not_called_again_in_that_fit():
    calls = []

    def broken(record):
        calls.append(record)
        raise ValueError("broken")

    callback = ClipCallback(percentile(), broken)
    model = linear()
    options = {"batch_size": BATCH, "verbose": 0, "callbacks": [callback]}
    with capture(("telemetry", "handler", "failure")) as events:
        model.fit(INPUTS, TARGETS, **options)
        assert len(calls) == len(events) == 1
        model.fit(INPUTS, TARGETS, **options)
    assert len(calls) == len(events) == 2


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


def main():
    found = {}
    for act, backends in CHECKS.items():
        if keras.backend.backend() not in backends:
            continue
        name = act.__name__
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", NUMPY_2, DeprecationWarning, r"keras\.")
                act()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()
        print(f"{time.process_time() - start:6.2f} s of CPU {name}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    import keras

    from clipping.integrations.keras import ClipCallback, saved_state

    main()
