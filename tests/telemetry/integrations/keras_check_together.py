"""Events of clippers and losses beside those of the callback, and threads."""

import threading

import keras
from keras_checking import (
    QUIET,
    STEP,
    check,
    fit,
    linear,
    steps,
    telling,
    values,
)

import regularizers
import telemetry
from clipping.integrations.keras import ClipCallback
from telemetry.integrations.keras import TelemetryCallback
from telemetry.testing import capture

PLACE = ("run_id", "attempt", "epoch", "step")


def by_step(events, *names):
    """Of each event of some names, where it was."""
    wanted = [tuple(name.split(".")) for name in names]
    return [
        (".".join(e.event), *(e.metadata[key] for key in PLACE))
        for e in events
        if e.event in wanted
    ]


def expected(*names, steps, per_epoch=3):
    return [(name, "r", 2, (step - 1) // per_epoch + 1, step) for step in steps for name in names]


@check()
def clipping_in_a_step_carries_the_steps_place_in_both_orders():
    names = ("training.step", "training.timing", "smartclip.clip.group", "smartclip.clip.stop")
    for order in (1, -1):
        callbacks = [telling(run_id="r", attempt=2), ClipCallback()][::order]
        with capture() as events:
            fit(linear(), *callbacks, epochs=2)
        assert by_step(events, *names) == expected(*names, steps=range(1, 7))


@check()
def clipping_of_an_accumulated_gradient_carries_the_steps_place():
    names = ("training.step", "smartclip.clip.stop")
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)
    with capture() as events:
        fit(linear(optimizer), ClipCallback(), telling(run_id="r", attempt=2), epochs=2)
    places = by_step(events, *names)
    assert [(place[0], place[-1]) for place in places] == [
        (name, step) for step in (1, 2, 3) for name in names
    ]
    assert [place[3] for place in places] == [1, 1, 2, 2, 2, 2]


@check("torch", "tensorflow")
def losses_inside_a_step_carry_its_place():
    def loss(targets, predictions):
        output = regularizers.custom_loss(
            targets,
            predictions,
            lambda data, logprobs: keras.ops.mean((data - logprobs) ** 2),
            regularizers=[regularizers.RegularizerSpec(l2, weight=0.5, name="small")],
        )
        return output.loss

    def l2(data, logprobs):
        return keras.ops.mean(logprobs**2)

    model = linear()
    model.compile(keras.optimizers.SGD(0.125), loss=loss, run_eagerly=True)
    fit(model)
    model = linear()
    model.compile(keras.optimizers.SGD(0.125), loss=loss, run_eagerly=True)
    with capture() as events:
        fit(model, telling(run_id="r", attempt=2), epochs=2)
    names = ("regularizer.compute.stop", "custom_loss.stop", "training.step")
    inside = [e for e in events if "step" in e.metadata]  # a first call only builds the model
    assert by_step(inside, *names) == expected(*names, steps=range(1, 7))


@check("torch", "jax")
def keras_still_reads_the_logs_in_another_thread():
    """As it does for callbacks that are of no concern to single batches."""
    threads = []

    class Seen(TelemetryCallback):
        def on_train_batch_end(self, batch, logs=None):
            threads.append(threading.get_ident())
            super().on_train_batch_end(batch, logs)

    with capture(STEP) as events:
        fit(linear(), Seen(without=QUIET), epochs=2)
    assert len(threads) == 6
    assert threading.get_ident() not in threads
    assert steps(events) == [1, 2, 3, 4, 5, 6]


@check()
def handlers_are_called_in_the_thread_that_trains_and_in_its_context():
    seen = []

    def handle(event, measurements, metadata, config):
        seen.append((threading.get_ident(), metadata["mine"]))

    with telemetry.attach("look", STEP, handle), telemetry.context(mine=7):
        fit(linear(), telling())
    assert seen == [(threading.get_ident(), 7)] * 3


@check()
def model_learns_the_same_whoever_watches():
    plain, watched = linear(), linear()
    fit(plain, epochs=2)
    with capture() as events:
        fit(watched, telling(), epochs=2)
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        assert (one == other).all()
    assert len(values(events, "loss")) == 6


@check("torch")
def failing_handler_harms_neither_the_fit_nor_other_handlers():
    def fail(event, measurements, metadata, config):
        raise ValueError("of the handler")

    with capture(STEP) as events:
        telemetry.attach("fails", STEP, fail)
        fit(linear(), telling())
    assert steps(events) == [1, 2, 3]
    assert not any(info.id == "fails" for info in telemetry.list_handlers())
