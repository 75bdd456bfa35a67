"""Does the checks of test_keras.py on one backend of Keras, that of ``KERAS_BACKEND``.

What failed is printed as JSON, in the last line.
"""

import importlib
import json
import traceback
import warnings

import keras
import numpy as np
from keras import ops

from regularizers import CustomLoss, RegularizerSpec, penalties, schedules
from telemetry.testing import capture
from telemetry.values import to_python

BACKEND = keras.backend.backend()
JITTED = BACKEND == "jax"
STOP = ("custom_loss", "stop")
PART = ("regularizer", "compute", "stop")

INPUTS = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
TARGETS = np.random.default_rng(1).normal(size=(32, 2)).astype("float32")
BATCH, STEPS, LR, WEIGHT, OWN = 8, 4, 0.05, 0.1, 0.5


def squared_error(targets, predictions):
    return ops.mean(ops.square(predictions - targets))


class Regularized(keras.Model):
    """A linear layer whose loss is the squared error and an l1 penalty of its outputs."""

    def __init__(self, live):
        super().__init__()
        self.only = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
        specs = [RegularizerSpec(penalties.l1, WEIGHT, "sparsity")]
        self.evaluated = CustomLoss(squared_error, specs)
        self.trained = CustomLoss(squared_error, specs, track_grad_norms=True, live=live)
        self.base = keras.metrics.Mean("base")
        self.sparsity = keras.metrics.Mean("sparsity")

    def call(self, inputs):
        return self.only(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        output = (self.trained if training else self.evaluated)(y, y_pred)
        self.base.update_state(output.base_loss.value)
        self.sparsity.update_state(output.regularizers["sparsity"].contribution)
        return output.loss


class Scheduled(Regularized):
    """The same with a weight that grows, by a step that is counted in a variable."""

    def __init__(self, live):
        super().__init__(live)
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, name="step")
        weight = schedules.linear_warmup(WEIGHT, steps=2)
        specs = [RegularizerSpec(penalties.l1, weight, "sparsity")]
        self.scheduled = CustomLoss(squared_error, specs, live=live)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        output = self.scheduled(y, y_pred, step=ops.convert_to_tensor(self.step))
        if training:
            self.step.assign_add(1)
        return output.loss


class WithLosses(Regularized):
    """The first with losses that Keras collects: of a layer's weights, and an ``add_loss``."""

    def __init__(self, live):
        super().__init__(live)
        self.only.kernel_regularizer = keras.regularizers.L2(OWN)

    def call(self, inputs):
        self.add_loss(OWN * ops.mean(ops.square(inputs), axis=0))
        return super().call(inputs)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss + sum(ops.sum(own) for own in self.losses)


def fit(model, steps=STEPS, **options):
    model.compile(keras.optimizers.SGD(LR), **options)
    batches = (INPUTS[: BATCH * steps], TARGETS[: BATCH * steps])
    with capture(STOP, PART) as events:
        history = model.fit(*batches, batch_size=BATCH, shuffle=False, verbose=0)
        if BACKEND == "jax":
            importlib.import_module("jax").effects_barrier()
    return model, history.history, events


def reference():
    """The same in NumPy: values and norms of each step, and the kernel at the end."""
    kernel, steps = np.ones((3, 2)), []
    for start in range(0, BATCH * STEPS, BATCH):
        x, y = INPUTS[start : start + BATCH].astype(float), TARGETS[start : start + BATCH]
        error = x @ kernel - y
        penalty, slope = np.abs(x @ kernel).sum(), np.sign(x @ kernel)
        gradient = 2 * error / error.size + WEIGHT * slope
        steps.append(
            {
                "base": np.square(error).mean(),
                "contribution": WEIGHT * penalty,
                "grad_norm": np.linalg.norm(slope),
                "total_grad_norm": np.linalg.norm(gradient),
            }
        )
        kernel = kernel - LR * x.T @ gradient
    return steps, kernel


def close(found, expected):
    np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=1e-4)


def check(model, history, events):
    steps, kernel = reference()
    close(model.get_weights()[0], kernel)
    for metric, name in {"base": "base", "sparsity": "contribution"}.items():
        close(history[metric], [np.mean([step[name] for step in steps])])
    parts = [event.measurements for event in events if event.event == PART]
    wholes = [event.measurements for event in events if event.event == STOP]
    for name in ("contribution", "grad_norm"):
        close([to_python(part[name]) for part in parts], [step[name] for step in steps])
    close(
        [to_python(whole["total_grad_norm"]) for whole in wholes],
        [step["total_grad_norm"] for step in steps],
    )


def the_events_of_a_fit_are_those_of_its_steps():
    check(*fit(Regularized(live=True), jit_compile=JITTED))


def the_events_of_an_eager_fit_come_at_once():
    check(*fit(Regularized(live=False), run_eagerly=True))


def evaluation_computes_the_same_loss():
    model, _, _ = fit(Regularized(live=False), jit_compile=JITTED)
    predictions = INPUTS @ model.get_weights()[0]
    error = np.square(predictions - TARGETS).mean()
    penalty = [np.abs(predictions[i : i + BATCH]).sum() for i in range(0, 32, BATCH)]
    found = model.evaluate(INPUTS, TARGETS, batch_size=BATCH, return_dict=True, verbose=0)
    close(found["base"], error)
    close(found["sparsity"], WEIGHT * np.mean(penalty))
    close(found["loss"], error + WEIGHT * np.mean(penalty))


def a_weight_follows_the_step_that_is_counted():
    _, _, events = fit(Scheduled(live=True), jit_compile=JITTED)
    weights = [to_python(event.metadata["weight"]) for event in events if event.event == PART]
    close(weights, [0.0, WEIGHT / 2, WEIGHT, WEIGHT])


def losses_that_keras_collects_are_part_of_what_is_trained():
    """By hand: the gradient of the first step, to which that of OWN * sum(w**2) is added."""
    model, history, _ = fit(WithLosses(live=True), jit_compile=JITTED, steps=1)
    plain, plain_history, _ = fit(Regularized(live=True), jit_compile=JITTED, steps=1)
    close(plain.get_weights()[0] - model.get_weights()[0], LR * 2 * OWN * np.ones((3, 2)))
    own = OWN * (6 + np.square(INPUTS[:BATCH]).mean(axis=0).sum())
    close(history["loss"], np.array(plain_history["loss"]) + own)


CHECKS = (
    the_events_of_a_fit_are_those_of_its_steps,
    the_events_of_an_eager_fit_come_at_once,
    evaluation_computes_the_same_loss,
    a_weight_follows_the_step_that_is_counted,
    losses_that_keras_collects_are_part_of_what_is_trained,
)


def failure(act):
    """The traceback of a check; None if it holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "__array__ impl", DeprecationWarning, r"keras\.")
            act()
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    print(json.dumps({act.__name__: failure(act) for act in CHECKS}))
