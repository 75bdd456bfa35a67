"""The sequence of events of fits, evaluations and predictions that go well."""

import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from keras_checking import (
    INPUTS,
    QUIET,
    SIZES,
    TARGETS,
    TIMING,
    check,
    check_told,
    fit,
    fitted,
    linear,
    steps,
    telling,
    told,
    values,
)

import telemetry
from telemetry.testing import capture

VALIDATED = [
    "workflow.run.start",
    "stage.run.start fit",
    "training.step e1 s1/6",
    "training.timing e1 s1/6",
    "training.step e1 s2/6",
    "training.timing e1 s2/6",
    "training.step e1 s3/6",
    "training.timing e1 s3/6",
    "stage.run.start validate e1 s3",
    "training.eval val e1 s3",
    "stage.run.stop validate e1 s3",
    "training.checkpoint 1.keras e1 s3",
    "training.epoch e1 s3",
    "training.step e2 s4/6",
    "training.timing e2 s4/6",
    "training.step e2 s5/6",
    "training.timing e2 s5/6",
    "training.step e2 s6/6",
    "training.timing e2 s6/6",
    "stage.run.start validate e2 s6",
    "training.eval val e2 s6",
    "stage.run.stop validate e2 s6",
    "training.checkpoint 2.keras e2 s6",
    "training.epoch e2 s6",
    "stage.run.stop fit",
    "workflow.run.stop",
]


def by_hand(epochs, rate=0.125):
    """The running means of loss and mae of each step, and the weights at the end, in NumPy."""
    kernel, bias = np.zeros((3, 1)), np.zeros(1)
    losses, errors, starts = [], [], np.cumsum([0, *SIZES])
    for _ in range(epochs):
        squares, absolutes, count = 0.0, 0.0, 0
        for start, size in zip(starts[:-1], SIZES, strict=True):
            inputs, targets = (a[start : start + size].astype(float) for a in (INPUTS, TARGETS))
            error = inputs @ kernel + bias - targets
            squares += float((error**2).sum())
            absolutes += float(np.abs(error).sum())
            count += size
            losses.append(squares / count)
            errors.append(absolutes / count)
            kernel -= rate * 2 * inputs.T @ error / size
            bias -= rate * 2 * error.mean(axis=0)
    return losses, errors, kernel


@check()
def fit_is_told_in_order_with_its_steps():
    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.ModelCheckpoint(f"{folder}/{{epoch}}.keras")
        model = linear()
        validation = (INPUTS[:4], TARGETS[:4])
        with capture() as events:
            fit(model, keep, telling("digits", run_id="r"), epochs=2, validation_data=validation)
        sizes = [Path(folder, f"{epoch}.keras").stat().st_size for epoch in (1, 2)]
        saved = [e for e in events if e.event == ("training", "checkpoint")]
        assert [e.metadata["path"] for e in saved] == [f"{folder}/1.keras", f"{folder}/2.keras"]
        assert [e.measurements["size_bytes"] for e in saved] == sizes
    check_told(events, VALIDATED)
    assert {e.metadata["run_id"] for e in events} == {"r"}
    assert {e.metadata["attempt"] for e in events} == {1}
    assert events[0].metadata["workflow"] == "digits"
    assert events[1].metadata["module"] == "keras.src.models.sequential"
    losses, errors, kernel = by_hand(2)
    np.testing.assert_allclose(values(events, "loss"), losses, rtol=1e-4)
    np.testing.assert_allclose(values(events, "mae"), errors, rtol=1e-4)
    assert values(events, "lr") == [0.125] * 6
    np.testing.assert_allclose(model.get_weights()[0], kernel, rtol=1e-4)
    epochs = [e for e in events if e.event == ("training", "epoch")]
    assert [set(e.measurements) for e in epochs] == [{"epoch_loss", "mae"}] * 2
    ends = [e.measurements["epoch_loss"] for e in epochs]
    np.testing.assert_allclose(ends, [losses[2], losses[5]], rtol=1e-4)
    assert [e.metadata["total_epochs"] for e in epochs] == [2, 2]
    error = INPUTS[:4] @ kernel + model.get_weights()[1] - TARGETS[:4]
    last = [e for e in events if e.event == ("training", "eval")][-1].measurements
    np.testing.assert_allclose(last["loss"], (error**2).mean(), rtol=1e-3, atol=1e-6)
    assert set(last) == {"loss", "mae"}


@check()
def order_of_the_callbacks_changes_only_that_of_their_events():
    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.ModelCheckpoint(f"{folder}/{{epoch}}.keras")
        events = fitted(linear(), telling(), keep, epochs=1)
    assert told(events)[-4:] == [
        "training.epoch e1 s3",
        "training.checkpoint 1.keras e1 s3",
        "stage.run.stop fit",
        "workflow.run.stop",
    ]


@check()
def evaluation_and_prediction_belong_to_the_run_that_has_trained():
    model, callback = linear(), telling(split="held_out")
    trained = fitted(model, callback)
    with capture() as events:
        model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[callback])
        model.predict(INPUTS, verbose=0, callbacks=[callback])
    check_told(
        events,
        [
            "workflow.run.start",
            "stage.run.start evaluate",
            "training.eval held_out s3",
            "stage.run.stop evaluate",
            "workflow.run.stop",
            "workflow.run.start",
            "stage.run.start predict",
            "stage.run.stop predict",
            "workflow.run.stop",
        ],
    )
    identities = {(e.metadata["run_id"], e.metadata["attempt"]) for e in (*trained, *events)}
    assert len(identities) == 1
    assert trained[0].metadata["workflow"] == "net"


@check()
def evaluation_of_a_new_model_has_no_step():
    with capture(("training", "eval")) as events:
        linear().evaluate(INPUTS, TARGETS, verbose=0, callbacks=[telling()])
    check_told(events, ["training.eval test"])


@check("torch")
def inside_a_run_of_the_users_there_are_stages_only():
    model, callback = linear(), telling("mine", run_id="ignored")
    with capture() as events, telemetry.workflow_run("outer", run_id="r", without=QUIET):
        fit(model, callback)
        model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[callback])
    runs = [e for e in events if e.event[:2] == ("workflow", "run")]
    assert [e.metadata["workflow"] for e in runs] == ["outer", "outer"]
    assert {e.metadata["run_id"] for e in events} == {"r"}
    stages = [words for words in told(events) if words.startswith("stage")]
    assert stages == [
        "stage.run.start fit",
        "stage.run.stop fit",
        "stage.run.start evaluate",
        "stage.run.stop evaluate",
    ]


@check()
def second_fit_is_a_new_run_unless_it_goes_on_from_an_epoch():
    model, callback = linear(), telling()
    first, second = fitted(model, callback), fitted(model, callback)
    third = fitted(model, callback, epochs=3, initial_epoch=1)
    assert [steps(events) for events in (first, second)] == [[1, 2, 3], [4, 5, 6]]
    assert told(third)[2:4] == ["training.step e2 s7/12", "training.timing e2 s7/12"]
    assert steps(third) == list(range(7, 13))
    runs = [(events[0].metadata["run_id"], events[0].metadata["attempt"]) for events in
            (first, second, third)]  # fmt: skip
    assert runs[0][0] != runs[1][0]
    assert runs[2] == (runs[1][0], 2)
    assert [attempt for _, attempt in runs] == [1, 1, 2]


@check()
def timing_has_the_sizes_of_the_batches_whatever_they_come_from():
    options = [{}, {"validation_split": 0.2}]

    def batches():
        for start in (0, 4, 8):
            yield INPUTS[start : start + 4], TARGETS[start : start + 4]

    if keras.backend.backend() != "tensorflow":
        options.append({"x": batches()})
    found = []
    for each in options:
        events = fitted(linear(), telling(), **each)
        timings = [e.measurements for e in events if e.event == TIMING]
        found.append([timing["batch_size"] for timing in timings])
        for timing in timings:
            rate = timing["batch_size"] * 1e9 / timing["step_duration"]
            assert timing["samples_per_second"] == rate
            waiting = timing.get("data_duration")
            assert (waiting is None) == (keras.backend.backend() == "tensorflow")
            assert waiting is None or 0 <= waiting < timing["step_duration"]
    assert found == [[4, 4, 2], [4, 4], [4, 4, 2]][: len(options)]


@check("tensorflow")
def sizes_of_a_data_set_are_known_if_they_are_static():
    import tensorflow as tf

    for rest, sizes in ((True, [4, 4]), (False, [None] * 3)):
        data = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS)).batch(4, drop_remainder=rest)
        events = fitted(linear(), telling(), x=data)
        assert [e.measurements.get("batch_size") for e in events if e.event == TIMING] == sizes


@check("jax", "torch")
def waiting_for_data_is_told_apart():
    """Keras draws two batches from a generator before the fit; the third takes 30 ms."""

    def batches():
        for start in (0, 4, 0):
            if start < len(drawn):
                time.sleep(0.03)
            drawn.append(start)
            yield INPUTS[start : start + 4], TARGETS[start : start + 4]

    drawn = []
    events = fitted(linear(), telling(), x=batches(), steps_per_epoch=3)
    waits = [e.measurements["data_duration"] for e in events if e.event == TIMING]
    assert waits[2] >= 29e6


@check("jax", "torch")
def handed_over_values_are_the_devices_own():
    events = fitted(linear(), telling())
    for event in events:
        if event.event == ("training", "step"):
            loss = event.measurements["loss"]
            assert keras.ops.is_tensor(loss)
            assert not getattr(loss, "requires_grad", False)
