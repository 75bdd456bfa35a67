"""Which run and attempt a training of transformers is, from checkpoint to checkpoint."""

import json

import pytest

from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- after the skips

STEP = ("training", "step")
TIMING = ("training", "timing")
SAVING = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3}
"""Ten steps."""


def identities(events):
    return {(e.metadata["run_id"], e.metadata["attempt"]) for e in events}


def test_a_resumed_training_is_a_new_attempt_at_the_same_run(make, tmp_path, lines):
    with capture(STEP) as events:
        make(TelemetryCallback(run_id="r"), **SAVING).train()
    assert identities(events) == {("r", 1)}
    checkpoint = str(tmp_path / "checkpoint-3")
    with capture(STEP, TIMING) as events:
        make(TelemetryCallback(), **SAVING).train(resume_from_checkpoint=checkpoint)
    assert identities(events) == {("r", 2)}
    steps = [event for event in events if event.event == STEP]
    epochs = [1, 1, 2, 2, 2, 2, 2]
    assert [line[1:] for line in lines(steps)] == list(zip(range(4, 11), epochs, strict=True))
    losses = [7.5, 9.5, 1.5, 3.5, 5.5, 7.5, 9.5]
    assert [float(e.measurements["loss"]) for e in steps] == losses
    sizes = [e.measurements["batch_size"] for e in events if e.event == TIMING]
    assert sizes == [2] * 7


def test_attempts_go_on_from_checkpoint_to_checkpoint(make, tmp_path):
    make(TelemetryCallback(run_id="r"), **SAVING).train()
    for attempt, step in ((2, 3), (3, 6)):
        with capture(STEP) as events:
            make(TelemetryCallback(), **SAVING).train(
                resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")
            )
        assert identities(events) == {("r", attempt)}


def test_the_same_callback_resumes_the_same_checkpoint_as_another_attempt_each_time(make, tmp_path):
    trainer = make(TelemetryCallback(), **SAVING)
    found = []
    with capture(STEP) as events:
        trainer.train()
    found += identities(events)
    for _ in range(2):
        with capture(STEP) as events:
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
        found += identities(events)
    assert [attempt for _, attempt in found] == [1, 2, 3]
    assert len({run_id for run_id, _ in found}) == 1


def test_what_the_constructor_says_wins_over_the_checkpoint(make, tmp_path):
    make(TelemetryCallback(run_id="r"), **SAVING).train()
    with capture(STEP) as events:
        make(TelemetryCallback(run_id="s", attempt=7), **SAVING).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )
    assert identities(events) == {("s", 7)}


def test_a_callback_that_was_added_after_the_checkpoint_begins_a_run_and_saves_it(make, tmp_path):
    make(**SAVING).train()
    with capture(STEP) as events:
        make(TelemetryCallback(run_id="r"), **SAVING).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )
    assert identities(events) == {("r", 1)}
    saved = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["TelemetryCallback"]["attributes"] == {
        "run": {"run_id": "r", "attempt": 1}
    }


def test_a_callback_that_the_trainer_restores_goes_on_too(make, tmp_path):
    make(TelemetryCallback("digits", run_id="r", without=["user"]), **SAVING).train()
    options = SAVING | {"restore_callback_states_from_checkpoint": True}
    with capture() as events:
        make(TelemetryCallback("other"), **options).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )
    assert identities(events) == {("r", 2)}
    assert events[0].metadata["workflow"] == "digits"
    assert "user" not in events[0].metadata
    assert sum(e.event == STEP for e in events) == 7


def test_an_evaluation_belongs_to_the_attempt_that_has_trained(make):
    trainer = make(TelemetryCallback(), max_steps=1)
    with capture() as events:
        trainer.train()
        trainer.evaluate()
    assert len(identities(events)) == 1


RUN = {"run_id": "r", "attempt": 1}


@pytest.mark.parametrize("restores", [False, True])
@pytest.mark.parametrize(
    "stored",
    [
        {"args": {}, "attributes": {}},
        {"args": {}, "attributes": {"run": {"run_id": 5, "attempt": "x"}}},
        {"args": {}, "attributes": {"run": {"run_id": "r", "attempt": None}}},
        {"args": {}, "attributes": {"run": [1, 2]}},
        [{"args": {}, "attributes": {"run": RUN}}] * 2,
    ],
    ids=["nothing", "types", "no attempt", "list", "two"],
)
def test_a_checkpoint_of_which_nothing_can_be_made_is_resumed_as_a_run_of_its_own(
    make, tmp_path, caplog, stored, restores
):
    make(TelemetryCallback(run_id="r"), **SAVING).train()
    path = tmp_path / "checkpoint-3" / "trainer_state.json"
    state = json.loads(path.read_text())
    state["stateful_callbacks"]["TelemetryCallback"] = stored
    path.write_text(json.dumps(state))
    options = SAVING | {"restore_callback_states_from_checkpoint": restores}
    with capture(STEP) as events:
        make(TelemetryCallback(), **options).train(resume_from_checkpoint=str(path.parent))
    ((run_id, attempt),) = identities(events)
    assert (run_id == "r", attempt) == (False, 1)
    assert [e.metadata["step"] for e in events] == list(range(4, 11))
    assert "where run_id and attempt should be" in caplog.text
    saved = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert saved["stateful_callbacks"]["TelemetryCallback"]["attributes"] == {
        "run": {"run_id": run_id, "attempt": 1}
    }
