"""The learning rate that each step was made with."""

import logging

import keras
import numpy as np
from keras_check_steps import TEN
from keras_checking import STEP, check, fit, fitted, linear, telling, values

from telemetry.integrations import keras_rates
from telemetry.testing import capture

SCHEDULES = keras.optimizers.schedules


class Halving(SCHEDULES.LearningRateSchedule):
    """One of the user's own."""

    def __call__(self, step):
        return 0.25 / (keras.ops.cast(step, "float32") + 1)

    def get_config(self):
        return {}


class Refusing(Halving):
    """Bears no step but the optimizer's own variable."""

    def __call__(self, step):
        if not isinstance(step, keras.Variable):
            raise TypeError("not the variable")
        return super().__call__(step)


@check()
def rate_of_each_step_is_that_of_the_schedule_before_it():
    kinds = [
        (SCHEDULES.ExponentialDecay(0.25, 4, 0.5, staircase=True), [0.25] * 4 + [0.125] * 4),
        (SCHEDULES.PiecewiseConstantDecay([2, 5], [0.5, 0.25, 0.125]), [0.5] * 3 + [0.25] * 3),
        (SCHEDULES.PolynomialDecay(0.5, 8, end_learning_rate=0.0), np.arange(8, 0, -1) / 16),
        (SCHEDULES.InverseTimeDecay(0.5, 1, 1.0), 0.5 / np.arange(1, 9)),
        (
            SCHEDULES.CosineDecay(0.0, 4, warmup_target=0.5, warmup_steps=4),
            [*np.arange(4) / 8, *(0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)))],
        ),
        (Halving(), 0.25 / np.arange(1, 9)),
    ]
    for schedule, expected in kinds:
        events = fitted(linear(keras.optimizers.SGD(schedule)), telling(), **TEN)
        found = values(events, "lr")[: len(expected)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@check()
def rate_counts_the_batches_of_an_accumulated_step():
    """As the optimizer does: the third batch, counted from 0, is the second."""
    optimizer = keras.optimizers.SGD(Halving(), gradient_accumulation_steps=3)
    events = fitted(linear(optimizer), telling(), **TEN)
    np.testing.assert_allclose(values(events, "lr"), [0.25 / 3, 0.25 / 6, 0.25 / 9], rtol=1e-6)


@check()
def rates_are_told_beyond_a_block():
    schedule, before = Halving(), keras_rates.BLOCK
    keras_rates.BLOCK = 3
    try:
        events = fitted(linear(keras.optimizers.SGD(schedule)), telling(), epochs=2, **TEN)
    finally:
        keras_rates.BLOCK = before
    np.testing.assert_allclose(values(events, "lr"), 0.25 / np.arange(1, 21), rtol=1e-6)


@check()
def rate_that_callbacks_change_is_told_from_the_step_on_that_it_holds_for():
    class Changing(keras.callbacks.Callback):
        """Asks for the model as it is to, without which JAX's variables are out of reach."""

        def on_train_batch_begin(self, batch, logs=None):
            if batch in (1, 2):
                self.model.optimizer.learning_rate = 0.5 / (batch + 1)

    for order in (1, -1):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: [0.125, 0.0625][epoch])
        callbacks = [telling(), schedule, Changing()][::order]
        with capture(STEP) as events:
            fit(linear(), *callbacks, epochs=2)
        expected = [0.125, 0.25, 0.5 / 3, 0.0625, 0.25, 0.5 / 3]
        np.testing.assert_allclose(values(events, "lr"), expected, rtol=1e-6)


@check("torch")
def rate_from_a_function_is_what_the_step_got():
    calls = []

    def rate():
        calls.append(1)
        return 0.5 / len(calls)

    events = fitted(linear(keras.optimizers.SGD(rate)), telling())
    found = values(events, "lr")
    assert len(found) == 3
    assert len(calls) == 3
    assert found == [0.5, 0.25, 0.5 / 3]


@check("tensorflow", "jax")
def rate_that_only_a_compiled_step_can_compute_is_left_out_and_said_once():
    records, watcher = [], logging.Handler()
    watcher.emit = records.append
    logging.getLogger("telemetry").addHandler(watcher)
    try:
        events = fitted(linear(keras.optimizers.SGD(Refusing())), telling())
    finally:
        logging.getLogger("telemetry").removeHandler(watcher)
    assert set(events[2].measurements) == {"loss", "mae"}
    assert [record.getMessage().split(":")[0] for record in records] == [
        "The learning rate cannot be reported"
    ]


@check()
def rates_are_the_optimizers_own_again_when_the_fit_is_over():
    model = linear()
    fitted(model, telling())
    assert "assign" not in vars(model.optimizer._learning_rate)
    model = linear(keras.optimizers.SGD(Halving()))
    fitted(model, telling())
    assert "_get_current_learning_rate" not in vars(model.optimizer)


@check()
def copy_of_the_rates_variable_has_methods_of_its_own():
    import copy

    found = []

    class Copying(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            copied = copy.deepcopy(self.model.optimizer._learning_rate)
            copied.assign(7.0)
            found.append(float(keras.ops.convert_to_numpy(copied)))

    assert values(fitted(linear(), telling(), Copying()), "lr") == [0.125] * 3
    assert found == [7.0] * 3
