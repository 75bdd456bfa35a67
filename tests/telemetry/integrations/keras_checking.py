"""What the keras_check modules have in common: the list of checks, models, data, and tellings."""

import difflib

import keras
import numpy as np

from telemetry.integrations.keras import TelemetryCallback
from telemetry.testing import capture

CHECKS = {}
BATCH = 4
SIZES = (4, 4, 2)
INPUTS = np.random.default_rng(1).normal(size=(sum(SIZES), 3)).astype("float32")
TARGETS = INPUTS.sum(axis=1, keepdims=True)
STEP = ("training", "step")
TIMING = ("training", "timing")
QUIET = ("user", "command", "git_commit", "frameworks")


def check(*backends):
    """Add a check for some backends; for all if none is named."""

    def add(function):
        CHECKS[function] = backends
        return function

    return add


def linear(optimizer=None, *, metrics=("mae",), **options):
    layer = keras.layers.Dense(1, kernel_initializer="zeros", name="only")
    model = keras.Sequential([keras.Input((3,)), layer], name="net")
    optimizer = optimizer or keras.optimizers.SGD(0.125)
    model.compile(optimizer, loss="mse", metrics=list(metrics), **options)
    return model


def telling(*args, **options):
    return TelemetryCallback(*args, **{"without": QUIET, **options})


def fit(model, *callbacks, **options):
    defaults = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    if "x" not in options:
        defaults |= {"x": INPUTS, "y": TARGETS}
    else:
        del defaults["batch_size"]
    return model.fit(callbacks=list(callbacks), **(defaults | options))


def fitted(model, callback, *others, **options):
    """The events of a fit."""
    with capture() as events:
        fit(model, callback, *others, **options)
    return events


def failed(error, act):
    """The events of what fails, and the error."""
    with capture() as events:
        try:
            act()
        except error as found:
            return events, found
    raise AssertionError("nothing has failed")


def told(events):
    """Each event in words: its name, where it was, and what it is of."""
    return [" ".join(_words(event)) for event in events]


def check_told(events, expected):
    """Compare events in words; what differs is in the error."""
    words = told(events)
    if words != expected:
        raise AssertionError("\n".join(difflib.ndiff(expected, words)))


def _words(event):
    about = event.metadata
    yield ".".join(event.event)
    for key in ("stage", "split", "checkpoint_name", "error"):
        if key in about:
            yield about[key]
    if "epoch" in about:
        yield f"e{about['epoch']}"
    if "step" in about:
        yield f"s{about['step']}" + (f"/{about['total_steps']}" if "total_steps" in about else "")


def steps(events):
    """The number of each step that was told."""
    return [event.metadata["step"] for event in events if event.event == STEP]


def values(events, name, event=STEP):
    """A measurement of each step, as numbers."""
    found = (each.measurements[name] for each in events if each.event == event)
    return [float(keras.ops.convert_to_numpy(value)) for value in found]


def interrupt(last, error=KeyboardInterrupt):
    """A callback that ends a fit at the end of a batch."""

    def stop(batch, logs=None):
        if batch == last:
            raise error

    return keras.callbacks.LambdaCallback(on_train_batch_end=stop)
