"""What the keras_check modules have in common: the list of checks, and comparisons."""

import keras
import numpy as np

CHECKS = {}


def check(*backends):
    """Add a check for some backends; for all if none is named."""

    def add(function):
        CHECKS[function] = backends
        return function

    return add


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
