"""The data, models and clippers of the keras_check modules, and the reference in NumPy."""

from functools import cache

import keras
import numpy as np

import clipping
from clipping.integrations.keras import ClipCallback
from telemetry.testing import capture

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


@cache
def first_fit():
    """A fit that several checks look at: the events, and what the reference did."""
    clip = Percentile()
    expected, model = reference(clip), linear()
    with capture(("smartclip", "**")) as events:
        fit(model, percentile())
    return clip, expected, model, events
