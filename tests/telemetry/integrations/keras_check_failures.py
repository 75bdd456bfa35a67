"""What is told of fits, evaluations and predictions that fail, and what is left behind."""

import copy
import threading

import keras
from keras_checking import (
    INPUTS,
    TARGETS,
    check,
    check_told,
    failed,
    fit,
    fitted,
    interrupt,
    linear,
    steps,
    telling,
    told,
)

from telemetry import attach
from telemetry.ambient import ambient_metadata
from telemetry.testing import capture

HEAD = [
    "workflow.run.start",
    "stage.run.start fit",
    "training.step e1 s1/3",
    "training.timing e1 s1/3",
    "training.step e1 s2/3",
    "training.timing e1 s2/3",
]


def ends(stage, error, place=""):
    return [f"stage.run.exception {stage} {error}{place}", f"workflow.run.exception {error}"]


class Failing(keras.Sequential):
    """Its own ``train_step`` fails the second time, or its ``test_step`` the first time."""

    made = 0
    method = "train_step"

    def train_step(self, *args):
        Failing.made += 1
        if self.method == "train_step" and Failing.made == 2:
            raise ValueError("of the model")
        return super().train_step(*args)

    def test_step(self, *args):
        if self.method == "test_step":
            raise ValueError("of the model")
        return super().test_step(*args)


def failing(method):
    Failing.made, Failing.method = 0, method
    model = Failing([keras.Input((3,)), keras.layers.Dense(1)], name="net")
    model.compile("sgd", loss="mse", run_eagerly=True)
    return model


def is_clean(model):
    return not {"save", "save_weights"} & set(vars(model)) and ambient_metadata() is None


@check()
def exception_in_the_model_ends_stage_and_run():
    model = failing("train_step")
    events, error = failed(ValueError, lambda: fit(model, telling()))
    check_told(events, [*HEAD[:4], *ends("fit", "ValueError: of the model", " e1 s2")])
    assert [e.metadata["reason"] for e in events[-2:]] == [error, error]
    assert [e.metadata["kind"] for e in events[-2:]] == ["error", "error"]
    assert is_clean(model)


@check()
def exception_of_another_callback_ends_stage_and_run():
    for error, kind in ((RuntimeError, "error"), (KeyboardInterrupt, "exit")):
        for order in (1, -1):
            model, callbacks = linear(), [telling(), interrupt(1, error)]
            events, _ = failed(error, lambda: fit(model, *callbacks[::order]))  # noqa: B023 -- at once
            check_told(events, [*HEAD, *ends("fit", error.__name__, " e1 s2")])
            assert events[-1].metadata["kind"] == kind
            assert is_clean(model)


@check()
def fit_after_a_failed_one_is_told_as_any():
    model, callback = linear(), telling()
    failed(KeyboardInterrupt, lambda: fit(model, callback, interrupt(0)))
    before = (
        model.optimizer.iterations.numpy() if hasattr(model.optimizer.iterations, "numpy") else 1
    )
    assert int(before) == 1
    events = fitted(model, callback)
    assert steps(events) == [2, 3, 4]
    assert told(events)[-2:] == ["stage.run.stop fit", "workflow.run.stop"]
    with capture() as later:
        fit(model)
    assert later == []


@check()
def exception_of_the_data_ends_stage_and_run():
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, place):
            if place == 2:
                raise OSError("of the data")
            return INPUTS[:4], TARGETS[:4]

    events, error = failed(Exception, lambda: fit(linear(), telling(), x=Data()))
    assert "of the data" in str(error)
    words = told(events)
    assert words[:2] == HEAD[:2]
    assert words[-2].startswith(f"stage.run.exception fit {type(error).__name__}")
    assert words[-1].startswith(f"workflow.run.exception {type(error).__name__}")
    assert set(words[2:-2]) <= set(HEAD)


@check("torch")
def fit_that_fails_before_it_begins_is_told_too():
    callback = telling()
    for refused in (lambda m: m, lambda m: m.compile("sgd", loss="mse")):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="net")
        refused(model)
        targets = TARGETS[:7]
        events, error = failed(
            ValueError,
            lambda: model.fit(INPUTS, targets, verbose=0, callbacks=[callback]),  # noqa: B023 -- at once
        )
        name = f"ValueError: {error}"
        check_told(events, [*HEAD[:2], *ends("fit", name)])
        assert is_clean(model)


@check()
def exception_in_a_validation_ends_all_three_stages():
    model, validation = failing("test_step"), (INPUTS[:4], TARGETS[:4])
    events, _ = failed(ValueError, lambda: fit(model, telling(), validation_data=validation))
    text = "ValueError: of the model"
    expected = [
        "stage.run.start validate e1 s3",
        f"stage.run.exception validate {text} e1 s3",
        *ends("fit", text, " e1 s3"),
    ]
    check_told(events[-4:], expected)


@check()
def evaluation_and_prediction_that_fail_are_told():
    for stage in ("evaluate", "predict"):
        model, callback = linear(), telling()
        stop = keras.callbacks.LambdaCallback()
        name = "on_test_batch_end" if stage == "evaluate" else "on_predict_batch_end"
        setattr(stop, name, lambda batch, logs=None: 1 / 0)
        data = (INPUTS, TARGETS) if stage == "evaluate" else (INPUTS,)
        act = lambda: getattr(model, stage)(*data, verbose=0, callbacks=[callback, stop])  # noqa: B023, E731 -- at once
        events, _ = failed(ZeroDivisionError, act)
        check_told(
            events,
            [
                "workflow.run.start",
                f"stage.run.start {stage}",
                *ends(stage, "ZeroDivisionError: division by zero"),
            ],
        )


@check("torch")
def evaluation_inside_a_fit_may_fail_alone():
    callback = telling()

    class Tester(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            try:
                self.model.evaluate(INPUTS, TARGETS[:3], verbose=0, callbacks=[callback])
            except ValueError:
                self.model.evaluate(INPUTS, TARGETS, verbose=0, callbacks=[callback])

    words = told(fitted(linear(), Tester(), callback))
    place = words.index("stage.run.start evaluate e1 s3")
    assert words[place + 1].startswith("stage.run.exception evaluate ValueError")
    assert words[place + 2 :] == [
        "stage.run.start evaluate e1 s3",
        "training.eval test e1 s3",
        "stage.run.stop evaluate e1 s3",
        "training.epoch e1 s3",
        "stage.run.stop fit",
        "workflow.run.stop",
    ]


@check("torch")
def mistakes_are_refused_when_the_fit_begins():
    model, callback = linear(), telling()
    events, error = failed(ValueError, lambda: fit(model, telling(), telling()))
    assert events == []
    assert str(error) == (
        "callbacks of fit has 2 of TelemetryCallback, so every event would come 2 times. "
        "Allowed: one."
    )

    class Nested(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            fit(linear(), callback)

    _, error = failed(RuntimeError, lambda: fit(model, Nested(), callback))
    assert str(error) == (
        "This TelemetryCallback is in a fit already, of 'net'. Allowed: one fit at a time. "
        "Make another one for the other fit."
    )
    for wrong in ({"workflow": 3}, {"attempt": "x"}, {"without": "user"}, {"split": None}):
        assert isinstance(failed(TypeError, lambda: telling(**wrong))[1], TypeError)  # noqa: B023 -- at once
    for wrong in ({"workflow": ""}, {"attempt": 0}, {"without": ["usr"]}, {"split": ""}):
        assert isinstance(failed(ValueError, lambda: telling(**wrong))[1], ValueError)  # noqa: B023 -- at once


@check("torch")
def interrupt_while_a_fit_begins_or_ends_leaves_nothing_open():
    events = ("workflow.run.start", "stage.run.start", "stage.run.stop", "workflow.run.stop")
    for name in events:
        left = [KeyboardInterrupt]

        def strike(*_, left=left):
            if left:
                raise left.pop()

        model, callback = linear(), telling()
        with attach("strike", tuple(name.split(".")), strike):
            found, _ = failed(KeyboardInterrupt, lambda: fit(model, callback))  # noqa: B023 -- at once
        assert is_clean(model), name
        if name.startswith("stage"):
            assert told(found)[-1] == "workflow.run.exception KeyboardInterrupt"
        words = told(fitted(model, callback))
        assert words[:2] == HEAD[:2]
        assert words[-2:] == ["stage.run.stop fit", "workflow.run.stop"]


@check("torch")
def callback_in_use_by_another_thread_is_refused():
    model, callback, refused = linear(), telling(), []
    callback.set_model(model)
    callback.on_train_begin()

    def use():
        acts = (lambda: fit(model, callback), callback.on_train_begin)
        refused.extend(str(failed(RuntimeError, act)[1]) for act in acts)

    other = threading.Thread(target=use)
    other.start()
    other.join()
    callback.on_train_end()
    name = threading.current_thread().name
    refusal = (
        f"This TelemetryCallback is in use by another thread, {name!r}. "
        "Allowed: one thread at a time. Make another one for this thread."
    )
    assert refused == [refusal, refusal]
    assert ambient_metadata() is None
    assert steps(fitted(model, callback)) == [1, 2, 3]


@check("torch")
def copy_that_is_made_in_a_fit_is_in_none():
    callback, copies = telling("mine"), []
    copying = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: copies.append(copy.deepcopy(callback))
    )
    assert steps(fitted(linear(), callback, copying)) == [1, 2, 3]
    events = fitted(linear(), copies[0])
    assert steps(events) == [1, 2, 3]
    assert events[0].metadata["workflow"] == "mine"
