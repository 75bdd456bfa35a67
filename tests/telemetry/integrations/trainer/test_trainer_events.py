"""What a training of transformers says, event by event."""

import json

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import clipping  # noqa: E402 -- after the skips
from clipping.integrations.transformers import ClipCallback  # noqa: E402 -- needs transformers
from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- needs it too

STEP = ("training", "step")
TIMING = ("training", "timing")
EPOCH = ("training", "epoch")
EVAL = ("training", "eval")
ACCUMULATE = {"gradient_accumulation_steps": 2, "num_train_epochs": 2}
"""Three steps an epoch, the last of one batch: losses of 2.5, 6.5 and 9.5."""


def test_two_epochs_with_all_there_is(make, lines):
    options = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 3}
    with capture() as events:
        trainer = make(TelemetryCallback(), **ACCUMULATE, **options)
        trainer.train()
    epochs = [
        [("training.timing", s, e), ("training.step", s, e)]
        for s, e in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2))
    ]
    assert lines(events) == [
        ("workflow.run.start", None, None),
        ("stage.run.start", None, None),
        *epochs[0],
        *epochs[1],
        *epochs[2],
        ("training.checkpoint", 3, 1),
        ("training.epoch", 3, 1),
        ("training.eval", 3, 1),
        *epochs[3],
        *epochs[4],
        *epochs[5],
        ("training.checkpoint", 6, 2),
        ("training.epoch", 6, 2),
        ("training.eval", 6, 2),
        ("stage.run.stop", None, None),
        ("workflow.run.stop", None, None),
    ]
    assert len({(e.metadata["run_id"], e.metadata["attempt"]) for e in events}) == 1
    assert {e.metadata["attempt"] for e in events} == {1}
    stages = {e.metadata["stage"] for e in events if e.event[0] == "stage"}
    assert stages == {"train"}
    runs = {e.metadata["workflow"] for e in events if e.event[0] == "workflow"}
    assert runs == {"Mean"}


def test_steps_measure_their_own_loss_and_the_learning_rate_they_were_made_with(make):
    with capture(STEP) as events:
        make(TelemetryCallback(), **ACCUMULATE).train()
    losses = [float(e.measurements["loss"]) for e in events]
    assert losses == pytest.approx([2.5, 6.5, 9.5] * 2)
    rates = [e.measurements["lr"] for e in events]
    assert rates == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert all(set(e.measurements) == {"loss", "lr"} for e in events)
    assert {e.metadata["total_steps"] for e in events} == {6}


def test_logged_steps_measure_what_is_logged_too(make):
    with capture(STEP) as events:
        make(TelemetryCallback(), **ACCUMULATE, logging_strategy="steps", logging_steps=2).train()
    assert [e.metadata["step"] for e in events] == [1, 2, 3, 4, 5, 6]
    means = [e.measurements.get("mean_loss") for e in events]
    assert means == [None, 4.5, None, 6.0, None, 8.0]
    assert [e.measurements.get("grad_norm") for e in events] == [None, 1.0] * 3
    assert [float(e.measurements["loss"]) for e in events] == [2.5, 6.5, 9.5] * 2


def test_epochs_measure_the_mean_of_their_steps(make):
    with capture(EPOCH) as events:
        make(TelemetryCallback(), **ACCUMULATE, logging_strategy="epoch").train()
    assert [float(e.measurements["epoch_loss"]) for e in events] == pytest.approx([18.5 / 3] * 2)
    assert [e.measurements["mean_loss"] for e in events] == pytest.approx([18.5 / 3] * 2)
    assert [(e.metadata["epoch"], e.metadata["total_epochs"]) for e in events] == [(1, 2), (2, 2)]


def test_timing_counts_the_items_of_all_micro_batches(make):
    with capture(TIMING) as events:
        make(TelemetryCallback(), **ACCUMULATE).train()
    assert [e.measurements["batch_size"] for e in events] == [4, 4, 2] * 2
    assert all(
        0 < e.measurements["data_duration"] < e.measurements["step_duration"] for e in events
    )


def test_what_is_logged_inside_a_step_is_on_the_event_of_this_step(make):
    class Trainer(transformers.Trainer):
        def compute_loss(self, model, inputs, **kwargs):
            self.log({"largest": inputs["x"].max().item(), "note": "text"})
            return super().compute_loss(model, inputs, **kwargs)

    with capture(STEP) as events:
        make(TelemetryCallback(), kind=Trainer, max_steps=3).train()
    assert [e.measurements["largest"] for e in events] == [2.0, 4.0, 6.0]
    assert all("note" not in e.measurements for e in events)


def test_a_loss_that_is_not_finite_is_not_smoothed_away(make):
    data = [{"x": torch.tensor(value)} for value in (1.0, 1.0, float("nan"), 1.0, 5.0, 5.0)]
    with capture(STEP) as events:
        make(
            TelemetryCallback(),
            train_dataset=data,
            max_steps=3,
            logging_strategy="steps",
            logging_steps=1,
        ).train()
    losses = [float(e.measurements["loss"]) for e in events]
    assert losses == pytest.approx([1.0, float("nan"), 5.0], nan_ok=True)
    assert [e.measurements["mean_loss"] for e in events] == [1.0, 0.0, 5.0]


def test_max_steps_in_the_middle_of_an_epoch(make, lines):
    with capture(STEP, EPOCH) as events:
        make(TelemetryCallback(), max_steps=7).train()
    steps = [("training.step", step, 1) for step in range(1, 6)]
    assert lines(events) == [
        *steps,
        ("training.epoch", 5, 1),
        ("training.step", 6, 2),
        ("training.step", 7, 2),
        ("training.epoch", 7, 2),
    ]
    assert {e.metadata["total_steps"] for e in events if e.event == STEP} == {7}


def test_an_epoch_that_a_callback_cuts_short_counts(make, hook, lines):
    def stop_after_two(hooked):
        hooked.control.should_epoch_stop = hooked.state.global_step in (2, 4)

    with capture(STEP, EPOCH) as events:
        make(TelemetryCallback(), hook("on_step_end", stop_after_two), num_train_epochs=3).train()
    assert lines(events)[:6] == [
        ("training.step", 1, 1),
        ("training.step", 2, 1),
        ("training.epoch", 2, 1),
        ("training.step", 3, 2),
        ("training.step", 4, 2),
        ("training.epoch", 4, 2),
    ]
    assert {line[2] for line in lines(events)[6:]} == {3}


def test_a_data_set_without_a_length_has_no_total_of_epochs(make, lines):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([{"x": torch.tensor(1.0)} for _ in range(4)])

    with capture(STEP, EPOCH) as events:
        make(TelemetryCallback(), train_dataset=Endless(), max_steps=3).train()
    assert lines(events, "total_epochs") == [
        ("training.step", 1, 1, None),
        ("training.step", 2, 1, None),
        ("training.epoch", 2, 1, None),
        ("training.step", 3, 2, None),
        ("training.epoch", 3, 2, None),
    ]


def test_early_stopping_and_the_best_model_at_the_end(make, lines):
    with capture() as events:
        make(
            TelemetryCallback(),
            transformers.EarlyStoppingCallback(2),
            num_train_epochs=9,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
        ).train()
    names = [".".join(e.event) for e in events]
    assert names.count("training.epoch") == names.count("training.eval") == 3
    assert names.count("training.checkpoint") == 3
    assert [e.metadata["step"] for e in events if e.event == STEP] == list(range(1, 16))
    assert names[-2:] == ["stage.run.stop", "workflow.run.stop"]


def test_checkpoints_say_where_they_are_and_how_large(make, tmp_path):
    with capture(("training", "checkpoint")) as events:
        make(TelemetryCallback(), max_steps=2, save_strategy="steps", save_steps=2).train()
    directory = tmp_path / "checkpoint-2"
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert events[0].measurements == {"size_bytes": sum(path.stat().st_size for path in files)}
    assert events[0].metadata["path"] == str(directory)
    assert events[0].metadata["checkpoint_name"] == "checkpoint-2"


def test_evaluations_are_named_after_their_data_sets(make):
    data = [{"x": torch.tensor(30.0)}]
    with capture(EVAL) as events:
        trainer = make(
            TelemetryCallback(),
            max_steps=2,
            eval_strategy="steps",
            eval_steps=1,
            eval_on_start=True,
            eval_dataset={"clean": data, "noisy_hard": [{"x": torch.tensor(50.0)}]},
            compute_metrics=lambda _: {"accuracy": 0.5, "table": [1, 2]},
        )
        trainer.train()
        trainer.evaluate(data, metric_key_prefix="held_out")
        trainer.predict(data)
    splits = [(e.metadata["split"], e.metadata["step"]) for e in events]
    during = [(split, step) for step in (0, 1, 2) for split in ("clean", "noisy_hard")]
    assert splits == [*during, ("held_out", 2), ("test", 2)]
    losses = [e.measurements["loss"] for e in events]
    assert losses == [30.0, 50.0, 30.0, 50.0, 30.0, 50.0, 30.0, 30.0]
    assert {e.measurements["accuracy"] for e in events} == {0.5}
    assert all("table" not in e.measurements for e in events)


def test_evaluate_and_predict_outside_of_training_are_stages(make, lines):
    trainer = make(TelemetryCallback("digits", run_id="r"))
    with capture() as events:
        trainer.evaluate()
        trainer.predict([{"x": torch.tensor(1.0)}])
    assert lines(events, "stage", "run_id") == [
        line
        for stage in ("evaluate", "predict")
        for line in (
            ("workflow.run.start", None, None, None, "r"),
            ("stage.run.start", None, None, stage, "r"),
            ("training.eval", 0, None, None, "r"),
            ("stage.run.stop", None, None, stage, "r"),
            ("workflow.run.stop", None, None, None, "r"),
        )
    ]


def test_inside_a_run_of_the_users_no_further_run_is_begun(make):
    trainer = make(TelemetryCallback(), max_steps=1)
    with capture() as events, telemetry.workflow_run("mine", run_id="r", attempt=4):
        trainer.train()
        trainer.evaluate()
    stages = [".".join((*e.event, e.metadata["stage"])) for e in events if e.event[0] == "stage"]
    assert stages == [
        "stage.run.start.train",
        "stage.run.stop.train",
        "stage.run.start.evaluate",
        "stage.run.stop.evaluate",
    ]
    assert sum(e.event[0] == "workflow" for e in events) == 2
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("r", 4)}


@pytest.mark.parametrize("first", ["telemetry", "clipping"])
def test_one_look_up_joins_a_step_with_its_clipping(make, first):
    callbacks = [TelemetryCallback(), ClipCallback(clipping.AutoClip())]
    with capture(STEP, TIMING, ("smartclip", "clip", "stop")) as events:
        make(*(callbacks if first == "telemetry" else callbacks[::-1]), **ACCUMULATE).train()
    keys = ("run_id", "attempt", "epoch", "step")
    found = [(tuple(e.metadata[key] for key in keys), e.event[-1]) for e in events]
    run = events[0].metadata["run_id"]
    assert found == [
        ((run, 1, 1 + (step > 3), step), what)
        for step in range(1, 7)
        for what in ("stop", "timing", "step")
    ]


def test_a_callback_that_is_added_as_a_class_listens(make):
    trainer = make(max_steps=1, run_name="mine")
    trainer.add_callback(TelemetryCallback)
    with capture(("workflow", "run", "*")) as events:
        trainer.train()
    assert [e.metadata["workflow"] for e in events] == ["mine", "mine"]


def test_trainers_without_the_callback_say_nothing(make):
    make(TelemetryCallback())
    trainer = make(max_steps=1)
    with capture() as events:
        trainer.train()
        trainer.evaluate()
    assert events == []
    assert "training_step" not in vars(trainer)


@pytest.mark.parametrize("listening", [True, False])
def test_losses_are_kept_only_where_somebody_listens(make, hook, listening):
    callback, seen = TelemetryCallback(), []
    look = hook("on_pre_optimizer_step", lambda _: seen.append(callback._losses.step()))
    with capture(STEP if listening else ("training", "checkpoint")):
        make(callback, look, max_steps=2).train()
    assert [loss is not None for loss in seen] == [listening] * 2


def test_two_callbacks_are_refused(make):
    with capture(("stage", "run", "exception")) as events:
        training = make(TelemetryCallback(), TelemetryCallback(), max_steps=1)
        with pytest.raises(ValueError, match="Another TelemetryCallback") as refusal:
            training.train()
    assert str(refusal.value) == (
        "Another TelemetryCallback reports this Trainer already, so every event would come twice. "
        "Allowed: one in callbacks=[...]. Remove the other, with trainer.pop_callback."
    )
    assert len(events) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workflow": ""}, "workflow must not be empty."),
        ({"run_id": 3}, "run_id must be a string, got 3 (int)."),
        ({"attempt": 0}, "attempt must be a whole number of at least 1, got 0 (int)."),
        (
            {"without": ["usr"]},
            (
                "without has 'usr', which the start of a run does not tell. Did you mean 'user'? "
                "Allowed: host, user, pid, world_size, command, python, frameworks, git_commit."
            ),
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises((TypeError, ValueError)) as refusal:
        TelemetryCallback(**options)
    assert str(refusal.value) == message


def test_the_state_is_plain_data(make):
    callback = TelemetryCallback("digits", without=["user"])
    make(callback, max_steps=1).train()
    state = json.loads(json.dumps(callback.state()))
    assert state == {
        "args": {"workflow": "digits", "without": ["user"]},
        "attributes": {"run": {"run_id": callback.run["run_id"], "attempt": 1}},
    }
