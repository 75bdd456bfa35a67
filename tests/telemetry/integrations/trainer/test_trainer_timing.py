"""The times of a training of transformers."""

import collections
from types import SimpleNamespace

import pytest

from telemetry.testing import capture
from telemetry.timing import StepTimer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- after the skips

TIMING = ("training", "timing")
ALWAYS = {"logging_strategy": "steps", "logging_steps": 1}


def test_a_batch_that_failed_is_in_no_step_of_the_next_training(make):
    callback = TelemetryCallback()
    trainer = make(callback, max_steps=2)
    trainer.model.hook = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    failed = callback._fit.timer
    trainer.model.hook = None
    with capture(TIMING) as events:
        trainer.train()
    assert [e.measurements["batch_size"] for e in events] == [2, 2]
    assert callback._fit.timer is not failed


def test_a_batch_that_failed_is_in_no_step_of_the_next_try(make):
    trainer = make(TelemetryCallback(), auto_find_batch_size=True, max_steps=2)

    def out_of_memory(x):
        if len(x) == 2 and 3.0 in x:
            raise RuntimeError("CUDA out of memory.")

    trainer.model.hook = out_of_memory
    with capture(TIMING) as events:
        trainer.train()
    assert [e.measurements["batch_size"] for e in events] == [2, 1, 1]


@pytest.mark.parametrize("inside", ["log", "evaluate"])
def test_what_happens_inside_a_step_is_not_waiting_for_data(make, inside):
    """A clock that only the model moves: by 100 in each of the two batches of a step."""
    now = [0]

    class Trainer(transformers.Trainer):
        def compute_loss(self, model, inputs, **kwargs):
            if model.training and inside == "evaluate":
                self.evaluate()
                model.train()
            elif model.training:
                self.log({"reward": 1.0})
            now[0] += 100 * model.training
            return super().compute_loss(model, inputs, **kwargs)

    class Callback(TelemetryCallback):
        def on_train_begin(self, *args, **kwargs):
            super().on_train_begin(*args, **kwargs)
            self._fit.timer = StepTimer(lambda: now[0])

    with capture(TIMING) as events:
        make(Callback(), kind=Trainer, gradient_accumulation_steps=2, max_steps=2).train()
    times = [(e.measurements["step_duration"], e.measurements["data_duration"]) for e in events]
    assert times == [(200, 0)] * 2


def test_what_is_logged_and_evaluated_between_two_steps_is_in_neither(make, hook):
    """A clock that only other callbacks move."""
    now = [0]

    class Callback(TelemetryCallback):
        def on_train_begin(self, *args, **kwargs):
            super().on_train_begin(*args, **kwargs)
            self._fit.timer = StepTimer(lambda: now[0])

    def move(_):
        now[0] += 100

    others = [hook(name, move) for name in ("on_log", "on_evaluate", "on_save")]
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    with capture(TIMING) as events:
        make(*others, Callback(), max_steps=3, **ALWAYS, **often).train()
    times = [(e.measurements["step_duration"], e.measurements["data_duration"]) for e in events]
    assert times == [(0, 0)] * 3
    assert now[0] > 0


def test_the_items_of_a_batch_encoding_are_counted(make):
    batch = transformers.BatchEncoding({"x": torch.zeros(3, 7)})
    assert isinstance(batch, collections.UserDict)
    callback = TelemetryCallback()
    callback.batch_begins(batch)
    assert callback._fit.timer.step()["batch_size"] == 3


def test_the_items_of_what_only_looks_like_a_batch_are_not_counted():
    callback = TelemetryCallback()
    callback.batch_begins(SimpleNamespace(data={"x": torch.zeros(3)}))
    assert "batch_size" not in callback._fit.timer.step()
