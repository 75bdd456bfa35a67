"""Models and loops of the user's own."""

import logging

import keras
from keras_checking import (
    INPUTS,
    TARGETS,
    check,
    check_told,
    failed,
    fit,
    fitted,
    linear,
    steps,
    telling,
    values,
)

from telemetry.integrations import keras_backends
from telemetry.integrations.keras_backends import Torch
from telemetry.testing import capture

WATCHED_SINCE_IMPORT = hasattr(keras.Model.fit, "watches")
"""As it must: ``model.fit(..., callbacks=[TelemetryCallback()])`` looks up the method first."""


@check()
def model_with_a_fit_of_its_own_is_told_as_any():
    class Own(keras.Sequential):
        def fit(self, rounds, callbacks):
            for _ in range(rounds):
                super().fit(INPUTS, TARGETS, batch_size=4, verbose=0, callbacks=callbacks)

    model = Own([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    with capture() as events:
        model.fit(2, [telling()])
    assert steps(events) == [1, 2, 3, 4, 5, 6]
    assert [".".join(e.event) for e in events].count("workflow.run.stop") == 2


@check()
def model_that_runs_eagerly_is_told_as_any():
    assert steps(fitted(linear(run_eagerly=True), telling(), epochs=2)) == [1, 2, 3, 4, 5, 6]


@check("tensorflow")
def model_on_several_replicas_is_told_once():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = linear()
    events = fitted(model, telling(), epochs=2)
    assert steps(events) == [1, 2, 3, 4, 5, 6]
    assert values(events, "lr") == [0.125] * 6


@check()
def logs_of_the_users_own_step_are_told_flat():
    class Own(keras.Sequential):
        def train_step(self, *args):
            found = super().train_step(*args)
            if isinstance(found, tuple):
                return {"parts": found[0], "other": found[0]["loss"] * 2}, found[1]
            return {"parts": found, "other": found["loss"] * 2}

    model = Own([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.125), loss="mse")
    events = fitted(model, telling())
    assert [2 * loss for loss in values(events, "loss")] == values(events, "other")
    assert set(events[2].measurements) == {"loss", "other", "lr"}


@check("torch")
def loop_that_calls_the_hooks_of_a_list_of_callbacks_is_told():
    model, callback = linear(), telling("mine")

    def train(fails_at=None):
        callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=1, steps=2)
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        for batch in range(2):
            callbacks.on_train_batch_begin(batch)
            if batch == fails_at:
                raise OSError
            callbacks.on_train_batch_end(batch, {"loss": model.train_on_batch(INPUTS, TARGETS)[0]})
        callbacks.on_epoch_end(0, {"loss": 0.5})
        callbacks.on_train_end()

    told_whole = [
        "workflow.run.start",
        "stage.run.start fit",
        "training.step e1 s1/2",
        "training.timing e1 s1/2",
        "training.step e1 s2/2",
        "training.timing e1 s2/2",
        "training.epoch e1 s2",
        "stage.run.stop fit",
        "workflow.run.stop",
    ]
    with capture() as events:
        train()
    check_told(events, told_whole)
    failed(OSError, lambda: train(fails_at=1))
    with capture() as events:
        fit(linear(), callback)
    error = "RuntimeError: The loop before has not called on_train_end."
    check_told(
        events[:3],
        [
            f"stage.run.exception fit {error} e1 s4",
            f"workflow.run.exception {error}",
            "workflow.run.start",
        ],
    )
    assert steps(events) == [1, 2, 3]


@check("torch")
def list_of_callbacks_that_the_user_has_made_is_told_too():
    model = linear()
    callbacks = keras.callbacks.CallbackList(
        [telling()], add_history=True, model=model, epochs=1, steps=3
    )
    with capture() as events:
        model.fit(INPUTS, TARGETS, batch_size=4, verbose=0, callbacks=callbacks)
    assert steps(events) == [1, 2, 3]


@check("torch")
def new_training_step_in_the_middle_is_told_on():
    class Compiling(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                self.model.make_train_function(force=True)

    model = linear()
    assert steps(fitted(model, telling(), Compiling(), epochs=2)) == [1, 2, 3, 4, 5, 6]
    assert vars(model)["train_function"].__qualname__.startswith("TorchTrainer.")


class Strange(Torch):
    """As another version of Keras might make it: it fails in the second step, or at once."""

    calls = 0

    def __init__(self, *args):
        super().__init__(*args)
        Strange.calls += 1
        if Strange.calls == 1:
            raise AttributeError("not in this version")

    def feed(self, arguments):
        Strange.calls += 1
        if Strange.calls == 4:
            raise AttributeError("not in this version")
        return super().feed(arguments)


@check("torch")
def fit_goes_on_when_it_cannot_be_looked_into():
    records, watcher, found = [], logging.Handler(), []
    watcher.emit = records.append
    plain, model, callback = linear(), linear(), telling()
    options = {"validation_data": (INPUTS, TARGETS)}
    logging.getLogger("telemetry").addHandler(watcher)
    keras_backends.KINDS["torch"] = Strange
    try:
        for _ in range(2):
            found.append(fitted(model, callback, **options))
            fit(plain, **options)
    finally:
        keras_backends.KINDS["torch"] = Torch
        logging.getLogger("telemetry").removeHandler(watcher)
    assert (plain.get_weights()[0] == model.get_weights()[0]).all()
    ends = ["stage.run.stop fit", "workflow.run.stop"]
    check_told(found[0], ["workflow.run.start", "stage.run.start fit", *ends])
    assert steps(found[1]) == [4]
    check_told(found[1][-2:], ends)
    assert [record.getMessage().split(". ")[0] for record in records] == [
        "TelemetryCallback cannot look into this fit",
        "TelemetryCallback cannot tell the steps of this fit, of which no more are reported",
    ]


@check("torch")
def evaluation_that_calls_the_hooks_of_a_list_of_callbacks_is_told():
    callbacks = keras.callbacks.CallbackList([telling()], model=linear())
    with capture() as events:
        callbacks.on_test_begin()
        callbacks.on_test_end({"loss": 0.5})
    expected = ["stage.run.start evaluate", "training.eval test", "stage.run.stop evaluate"]
    check_told(events, ["workflow.run.start", *expected, "workflow.run.stop"])


@check("torch")
def fits_without_the_callback_pass_through():
    import inspect

    model = linear()
    with capture() as events:
        fit(model)
        model.evaluate(INPUTS, TARGETS, verbose=0)
        model.predict(INPUTS, verbose=0, callbacks=[keras.callbacks.Callback()])
    assert events == []
    assert WATCHED_SINCE_IMPORT
    assert list(inspect.signature(model.fit).parameters)[:3] == ["x", "y", "batch_size"]
    assert keras.Model.fit.__name__ == "fit"
    telling()
    assert not hasattr(keras.Model.fit.__wrapped__, "watches")


@check("torch")
def evaluation_inside_a_loop_of_the_users_is_a_stage_of_it():
    model, callback = linear(), telling()
    callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=1, steps=1)
    with capture() as events:
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        callbacks.on_train_batch_begin(0)
        callbacks.on_train_batch_end(0, {"loss": 0.5})
        model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[callback])
        callbacks.on_epoch_end(0, {"loss": 0.5})
        callbacks.on_train_end()
    check_told(
        events,
        [
            "workflow.run.start",
            "stage.run.start fit",
            "training.step e1 s1/1",
            "training.timing e1 s1/1",
            "stage.run.start evaluate e1 s1",
            "training.eval test e1 s1",
            "stage.run.stop evaluate e1 s1",
            "training.epoch e1 s1",
            "stage.run.stop fit",
            "workflow.run.stop",
        ],
    )


@check("torch")
def loop_without_a_model_is_refused():
    callback = telling()
    callbacks = keras.callbacks.CallbackList([callback])
    events, error = failed(RuntimeError, callbacks.on_train_begin)
    assert events == []
    assert str(error) == (
        "This TelemetryCallback was not told its model. Tell it: "
        "keras.callbacks.CallbackList([...], model=model)."
    )
    assert steps(fitted(linear(), callback)) == [1, 2, 3]


@check("torch")
def logs_whose_names_are_no_strings_are_told():
    class Odd(keras.Sequential):
        def train_step(self, *args):
            return {0: super().train_step(*args)["loss"]}

    model = Odd([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    events = fitted(model, telling())
    assert set(events[2].measurements) == {"0", "lr"}
    (epoch,) = [e for e in events if e.event == ("training", "epoch")]
    assert set(epoch.measurements) == {"0"}


@check("torch")
def metric_that_is_called_epoch_loss_is_told_beside_the_loss():
    logging_one = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(epoch_loss=7.0)
    )
    events = fitted(linear(), logging_one, telling())
    (epoch,) = [e for e in events if e.event == ("training", "epoch")]
    assert set(epoch.measurements) == {"loss", "epoch_loss", "mae"}
    assert epoch.measurements["epoch_loss"] == 7.0


@check("tensorflow")
def training_function_has_the_attributes_that_it_has_otherwise():
    found = []

    class Looking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            function = self.model.train_function
            found.append((function.__name__, hasattr(function, "get_concrete_function")))

    model = linear(jit_compile=False)
    fit(model, Looking())
    fit(model, telling(), Looking())
    assert len(set(found)) == 1
