"""What a training of transformers says when it fails."""

import pytest

from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- after the skips

STEP = ("training", "step")
RUN = ("workflow", "run", "**")
STAGE = ("stage", "run", "**")


def ends(events):
    """How runs and stages have ended."""
    return [
        (".".join(e.event), str(e.metadata.get("reason", "")), e.metadata.get("kind"))
        for e in events
        if e.event[-1] in ("stop", "exception")
    ]


def failed(message, kind="error"):
    return [("stage.run.exception", message, kind), ("workflow.run.exception", message, kind)]


STOPPED = [("stage.run.stop", "", None), ("workflow.run.stop", "", None)]


class CrashError(Exception):
    pass


def crash_at(value, error):
    def look(x):
        if (x == value).any():
            raise error

    return look


@pytest.mark.parametrize(
    ("error", "kind"),
    [(CrashError("no luck"), "error"), (KeyboardInterrupt("no luck"), "exit")],
)
def test_a_model_that_fails_in_the_fourth_step(make, lines, error, kind):
    trainer = make(
        TelemetryCallback("digits", run_id="r"), logging_strategy="steps", logging_steps=1
    )
    trainer.model.hook = crash_at(7.0, error)
    with capture() as events, pytest.raises(type(error)) as raised:
        trainer.train()
    assert raised.value is error
    steps = [(f"training.{what}", step, 1) for step in (1, 2, 3) for what in ("timing", "step")]
    assert lines(events) == [
        ("workflow.run.start", None, None),
        ("stage.run.start", None, None),
        *steps,
        ("stage.run.exception", 4, 1),
        ("workflow.run.exception", None, None),
    ]
    assert ends(events) == failed("no luck", kind)
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("r", 1)}
    assert all(e.metadata["reason"] is error for e in events[-2:])
    assert events[-1].metadata["stacktrace"][-1].name == "look"


def test_data_that_fail(make):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            if index == 5:
                raise CrashError("torn file")
            return {"x": torch.tensor(1.0)}

    with capture(STEP, RUN, STAGE) as events, pytest.raises(CrashError):
        make(TelemetryCallback(), train_dataset=Broken()).train()
    # accelerate fetches one batch ahead: the third while the second is handed out.
    assert [e.metadata["step"] for e in events if e.event == STEP] == [1]
    assert ends(events) == failed("torn file")


@pytest.mark.parametrize(
    "name",
    ["on_train_begin", "on_epoch_begin", "on_step_end", "on_log", "on_evaluate", "on_train_end"],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_another_callback_that_fails(make, hook, name, is_first):
    def crash(_):
        raise CrashError(name)

    callbacks = [hook(name, crash), TelemetryCallback()]
    trainer = make(
        *(callbacks if is_first else callbacks[::-1]),
        max_steps=2,
        logging_strategy="steps",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
    )
    with capture(RUN, STAGE) as events, pytest.raises(CrashError):
        trainer.train()
    assert ends(events) == failed(name)
    assert len(events) == 4


def test_a_step_that_waits_to_be_logged_is_not_lost(make, hook):
    def crash(_):
        raise CrashError("no disk")

    trainer = make(
        TelemetryCallback(), hook("on_step_end", crash), logging_strategy="steps", logging_steps=1
    )
    with capture(STEP) as events, pytest.raises(CrashError):
        trainer.train()
    assert [(e.metadata["step"], float(e.measurements["loss"])) for e in events] == [(1, 1.5)]


def test_a_training_that_cannot_begin(make):
    trainer = make(TelemetryCallback("digits"), train_dataset=None)
    with capture(RUN, STAGE) as events, pytest.raises(ValueError, match="train_dataset") as error:
        trainer.train()
    assert ends(events) == failed(str(error.value))
    assert [e.event[-1] for e in events] == ["start", "start", "exception", "exception"]


def test_an_evaluation_that_fails_in_training(make):
    trainer = make(TelemetryCallback(), max_steps=2, eval_strategy="steps", eval_steps=1)
    trainer.model.hook = crash_at(10.0, CrashError("bad split"))
    with capture(STEP, RUN, STAGE) as events, pytest.raises(CrashError):
        trainer.train()
    assert [e.metadata["step"] for e in events if e.event == STEP] == [1]
    assert ends(events) == failed("bad split")


@pytest.mark.parametrize("stage", ["evaluate", "predict"])
def test_an_evaluation_that_fails_by_itself(make, stage):
    trainer = make(TelemetryCallback())
    trainer.model.hook = crash_at(10.0, CrashError("bad split"))
    with capture(RUN, STAGE) as events, pytest.raises(CrashError):
        getattr(trainer, stage)(trainer.eval_dataset)
    assert ends(events) == failed("bad split")
    assert {e.metadata["stage"] for e in events if e.event[0] == "stage"} == {stage}


def test_the_next_training_of_the_same_trainer_is_a_run_of_its_own(make):
    trainer = make(TelemetryCallback(), max_steps=2)
    trainer.model.hook = crash_at(3.0, CrashError("once"))
    with capture(STEP, RUN, STAGE) as events:
        with pytest.raises(CrashError):
            trainer.train()
        trainer.model.hook = None
        trainer.train()
    assert ends(events) == failed("once") + STOPPED
    assert [e.metadata["step"] for e in events if e.event == STEP] == [1, 1, 2]
    assert len({e.metadata["run_id"] for e in events}) == 2
    assert "training_step" not in vars(trainer)


def test_the_next_training_under_the_same_name_is_a_new_attempt(make):
    trainer = make(TelemetryCallback(run_id="r"), max_steps=1)
    with capture(STEP) as events:
        trainer.train()
        trainer.train()
    found = [(e.metadata["run_id"], e.metadata["attempt"]) for e in events]
    assert found == [("r", 1), ("r", 2)]


@pytest.mark.parametrize("fails", [False, True])
def test_a_subclass_that_trains_in_its_own_way(make, fails):
    class Trainer(transformers.Trainer):
        def train(self, *args, **kwargs):
            self.prepared = True
            return super().train(*args, **kwargs)

        def training_step(self, *args, **kwargs):
            return super().training_step(*args, **kwargs) * 2

    trainer = make(TelemetryCallback(), kind=Trainer, max_steps=2)
    if fails:
        trainer.model.hook = crash_at(3.0, CrashError("no luck"))
    with capture(STEP, RUN, STAGE) as events:
        if fails:
            with pytest.raises(CrashError):
                trainer.train()
        else:
            trainer.train()
    losses = [float(e.measurements["loss"]) for e in events if e.event == STEP]
    assert losses == ([3.0] if fails else [3.0, 7.0])
    assert ends(events) == (failed("no luck") if fails else STOPPED)
    stages = {e.metadata["module"] for e in events if e.event[0] == "stage"}
    assert stages == {__name__}


def test_a_loop_that_asks_the_callbacks_alone_is_reported(make, lines):
    """A subclass whose `train` is its own from beginning to end."""

    class Trainer(transformers.Trainer):
        def train(self):
            handler, asked = self.callback_handler, (self.args, self.state, self.control)
            handler.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
            handler.on_train_begin(*asked)
            handler.on_epoch_begin(*asked)
            for _ in range(2):
                handler.on_step_begin(*asked)
                handler.on_pre_optimizer_step(*asked)
                self.state.global_step += 1
                handler.on_step_end(*asked)
            handler.on_epoch_end(*asked)
            handler.on_train_end(*asked)

    with capture(STEP, RUN, STAGE) as events:
        make(TelemetryCallback(), kind=Trainer).train()
    assert lines(events) == [
        ("workflow.run.start", None, None),
        ("stage.run.start", None, None),
        ("training.step", 1, 1),
        ("training.step", 2, 1),
        ("stage.run.stop", None, None),
        ("workflow.run.stop", None, None),
    ]
    assert [e.measurements for e in events if e.event == STEP] == [{"lr": 0.5}] * 2


def test_a_training_step_that_somebody_has_put_on_the_trainer_stays(make):
    trainer = make(TelemetryCallback(), max_steps=1)
    original = trainer.training_step

    def mine(*args, **kwargs):
        return original(*args, **kwargs) + 1

    trainer.training_step = mine
    with capture(STEP) as events:
        trainer.train()
    assert float(events[0].measurements["loss"]) == 2.5
    assert trainer.training_step is mine


def test_each_try_of_auto_find_batch_size_is_an_attempt(make):
    trainer = make(TelemetryCallback(), auto_find_batch_size=True, max_steps=2)

    def out_of_memory(x):
        if len(x) == 2 and 3.0 in x:
            raise RuntimeError("CUDA out of memory.")

    trainer.model.hook = out_of_memory
    with capture(STEP, RUN, STAGE) as events:
        trainer.train()
    steps = [
        (e.metadata["attempt"], e.metadata["step"], float(e.measurements["loss"]))
        for e in events
        if e.event == STEP
    ]
    assert steps == [(1, 1, 1.5), (2, 1, 1.0), (2, 2, 2.0)]
    why = (
        "The Trainer began to train again before the training under way had ended. With "
        "auto_find_batch_size it does so, with smaller batches, when memory has run out. "
        "The last batch failed: RuntimeError: CUDA out of memory."
    )
    assert ends(events) == failed(why) + STOPPED
    assert len({e.metadata["run_id"] for e in events}) == 1
