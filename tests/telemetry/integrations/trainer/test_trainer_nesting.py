"""Callbacks of transformers that come late, or are in several trainers."""

import pytest

from telemetry.ambient import ambient_metadata
from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- after the skips

STEP = ("training", "step")
RUN = ("workflow", "run", "**")
STAGE = ("stage", "run", "**")
STARTS = [("workflow.run.start", None, None), ("stage.run.start", None, None)]
STOPS = [("stage.run.stop", None, None), ("workflow.run.stop", None, None)]


@pytest.mark.parametrize(
    ("when", "first"),
    [("on_train_begin", 1), ("on_epoch_begin", 1), ("on_step_begin", 1), ("on_step_end", 2)],
)
def test_a_callback_that_is_added_in_the_middle_reports_the_rest(make, hook, lines, when, first):
    def add(hooked):
        if not any(isinstance(each, TelemetryCallback) for each in callbacks()):
            trainer.add_callback(TelemetryCallback())

    def callbacks():
        return trainer.callback_handler.callbacks

    trainer = make(hook(when, add), max_steps=3)
    with capture(STEP, RUN, STAGE) as events:
        trainer.train()
    steps = [("training.step", step, 1) for step in range(first, 4)]
    assert lines(events) == [*STARTS, *steps, *STOPS]
    losses = [float(e.measurements["loss"]) for e in events if e.event == STEP]
    assert losses == [1.5, 3.5, 5.5][first - 1 :]
    assert "training_step" not in vars(trainer)


def test_a_training_to_which_a_callback_was_added_can_fail(make, hook):
    trainer = make(hook("on_train_begin", lambda _: trainer.add_callback(TelemetryCallback())))

    def crash(x):
        raise FloatingPointError("no luck")

    trainer.model.hook = crash
    with capture(RUN) as events, pytest.raises(FloatingPointError):
        trainer.train()
    assert [e.event[-1] for e in events] == ["start", "exception"]


def test_one_callback_in_two_trainers_of_which_one_trains_inside_the_other(make, hook, lines):
    callback = TelemetryCallback()
    inner = make(callback, max_steps=1)

    def train_inside(hooked):
        if hooked.state.global_step == 1:
            with pytest.raises(ValueError, match="has not ended") as refusal:
                inner.train()
            assert str(refusal.value) == (
                "This TelemetryCallback reports a training that has not ended, so it cannot report "
                "another inside. Allowed: one training at a time. Give the inner Trainer a "
                "callback of its own."
            )

    trainer = make(callback, hook("on_step_end", train_inside), max_steps=3)
    with capture(STEP, RUN, STAGE) as events:
        trainer.train()
    assert lines(events) == [*STARTS, *(("training.step", step, 1) for step in (1, 2, 3)), *STOPS]
    with capture(RUN) as events:
        inner.train()
    assert [e.event[-1] for e in events] == ["start", "stop"]


def test_a_loop_of_its_own_inside_another_training_is_a_stage_of_that_run(make, hook):
    class Trainer(transformers.Trainer):
        def train(self):
            handler, asked = self.callback_handler, (self.args, self.state, self.control)
            handler.on_train_begin(*asked)
            handler.on_train_end(*asked)

    inner = make(TelemetryCallback(), kind=Trainer)
    outer = make(TelemetryCallback(), hook("on_step_end", lambda _: inner.train()), max_steps=1)
    with capture(RUN, STAGE) as events:
        outer.train()
    assert [f"{e.event[0]} {e.event[-1]}" for e in events] == [
        "workflow start",
        *["stage start"] * 2,
        *["stage stop"] * 2,
        "workflow stop",
    ]


def test_a_loop_of_its_own_that_has_failed_does_not_hold_up_the_next_training(make):
    class Trainer(transformers.Trainer):
        fails = True

        def train(self):
            if self.fails:
                self.callback_handler.on_train_begin(self.args, self.state, self.control)
                raise OSError("no space left")
            return super().train()

    trainer = make(TelemetryCallback(), kind=Trainer, max_steps=1)
    with capture(RUN) as events:
        with pytest.raises(OSError, match="no space"):
            trainer.train()
        trainer.fails = False
        trainer.train()
    assert [e.event[-1] for e in events] == ["start", "exception", "start", "stop"]
    assert ambient_metadata() is None
