"""What is tracked with accelerate, as events."""

import threading

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

import clipping  # noqa: E402 -- after the skips
from telemetry.integrations.accelerate import TelemetryTracker  # noqa: E402 -- needs accelerate

STEP = ("training", "step")
EVAL = ("training", "eval")


@pytest.fixture
def start():
    """Make an `Accelerator` that tracks with one of ours, and end what it has begun."""
    started = []

    def start(*given, config=None, **options):
        tracker = TelemetryTracker(*(given or ("digits",)), **options)
        accelerator = accelerate.Accelerator(
            cpu=True, log_with=tracker, gradient_accumulation_steps=2
        )
        accelerator.init_trackers("project", config=config)
        started.append(tracker)
        return accelerator

    yield start
    for tracker in started:
        tracker.finish()


def train(accelerator, crash_in=None):
    """Five batches of two: a step after the second, the fourth, and the last."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(torch.arange(10.0).reshape(10, 1), batch_size=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    step = 0
    with clipping.clip_context(model, optimizer, clipping.AutoClip()):
        for batch in telemetry.track(loader):
            with accelerator.accumulate(model):
                accelerator.backward(model(batch).square().mean())
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                step += 1
                if step == crash_in:
                    raise FloatingPointError("no luck")
                accelerator.log({"train_loss": step / 2, "epoch": 0}, step=step)
    accelerator.log({"eval_loss": 0.25, "eval/accuracy": 0.5}, step=step)


def test_a_training_with_accumulation_from_beginning_to_end(start):
    with capture(("workflow", "**"), STEP, EVAL) as events:
        accelerator = start("digits", config={"learning_rate": 0.1})
        train(accelerator)
        accelerator.end_training()
    found = [
        (".".join(e.event), e.metadata.get("step"), e.measurements.get("loss")) for e in events
    ]
    assert found == [
        ("workflow.run.start", None, None),
        ("training.step", 1, 0.5),
        ("training.step", 2, 1.0),
        ("training.step", 3, 1.5),
        ("training.eval", 3, 0.25),
        ("workflow.run.stop", None, None),
    ]
    assert events[0].metadata["config"] == {"learning_rate": 0.1}
    assert events[0].metadata["workflow"] == "digits"
    assert events[4].metadata["split"] == "eval"
    assert events[4].measurements == {"loss": 0.25, "accuracy": 0.5}
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {
        (events[0].metadata["run_id"], 1)
    }


def test_what_else_runs_is_in_the_same_run(start):
    with capture(("smartclip", "clip", "stop")) as events:
        accelerator = start(run_id="r", attempt=2)
        train(accelerator)
    assert len(events) == 3
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("r", 2)}


def test_the_start_is_told_at_once_without_a_config(start):
    with capture(("workflow", "run", "start")) as events:
        start(without=["user"])
        assert len(events) == 1
    assert "config" not in events[0].metadata
    assert "user" not in events[0].metadata
    assert "pid" in events[0].metadata


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"loss": 1.5}, [(STEP, {"loss": 1.5}, {})]),
        ({"train/loss": 1, "learning_rate": 0.1}, [(STEP, {"loss": 1, "lr": 0.1}, {})]),
        ({"training.lr": 0.1}, [(STEP, {"lr": 0.1}, {})]),
        ({"rewards/mean": 0.1, "train_": 2}, [(STEP, {"rewards/mean": 0.1, "train_": 2}, {})]),
        ({"testing": 1, "evaluate_all": 2}, [(STEP, {"testing": 1, "evaluate_all": 2}, {})]),
        (
            {"loss": 1.0, "val_loss": 2.0, "test.top_1": 3.0},
            [
                (STEP, {"loss": 1.0}, {}),
                (EVAL, {"loss": 2.0}, {"split": "val"}),
                (EVAL, {"top_1": 3.0}, {"split": "test"}),
            ],
        ),
        (
            {"loss": 1.0, "epoch": 2, "note": "text", "list": [1]},
            [(STEP, {"loss": 1.0}, {"epoch": 2, "note": "text", "list": [1]})],
        ),
        ({"loss": 1.0, "epoch": 0.5}, [(STEP, {"loss": 1.0, "epoch": 0.5}, {})]),
        ({"loss": 1.0, "step": 4}, [(STEP, {"loss": 1.0}, {"step": 4})]),
        ({"note": "text"}, []),
    ],
)
def test_names_tell_training_evaluation_and_metadata_apart(start, values, expected):
    accelerator = start()
    with capture() as events:
        accelerator.log(values)
    assert [(e.event, e.measurements, _without_run(e.metadata)) for e in events] == expected


def _without_run(metadata):
    return {key: value for key, value in metadata.items() if key not in ("run_id", "attempt")}


def test_log_kwargs_are_metadata(start):
    accelerator = start()
    with capture(STEP) as events:
        accelerator.log({"loss": 1.0}, step=3, log_kwargs={"telemetry": {"total_steps": 9}})
    assert _without_run(events[0].metadata) == {"step": 3, "total_steps": 9}


def test_a_tensor_is_copied_without_its_graph_and_not_read(start):
    accelerator = start()
    total = torch.ones((), requires_grad=True) * 2
    unreadable = torch.ones((), device="meta")
    with capture(STEP) as events:
        accelerator.log({"loss": total, "other": unreadable}, step=1)
        with torch.no_grad():
            total += 1
    measured = events[0].measurements
    assert measured["loss"].item() == 2.0
    assert not measured["loss"].requires_grad
    assert measured["other"].device.type == "meta"


def test_inside_a_run_of_the_users_no_further_run_is_begun(start):
    with capture() as events, telemetry.workflow_run("mine", run_id="r", attempt=3):
        accelerator = start()
        accelerator.log({"loss": 1.0}, step=1)
        accelerator.end_training()
        accelerator.log({"loss": 0.5}, step=2)
    assert [e.event[-1] for e in events] == ["start", "step", "step", "stop"]
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("r", 3)}


def test_the_run_of_a_tracker_is_told_in_other_threads_too(start):
    accelerator = start(run_id="r")
    with capture(STEP) as events:
        thread = threading.Thread(target=accelerator.log, args=({"loss": 1.0},))
        thread.start()
        thread.join()
    assert events[0].metadata["run_id"] == "r"


def test_after_the_end_values_are_told_without_a_run(start):
    accelerator = start()
    accelerator.end_training()
    accelerator.end_training()
    with capture() as events:
        accelerator.log({"loss": 1.0}, step=1)
    assert [(e.event, e.metadata) for e in events] == [(STEP, {"step": 1})]


def test_the_run_is_what_get_tracker_unwraps(start):
    accelerator = start(run_id="r")
    assert accelerator.get_tracker("telemetry", unwrap=True).run_id == "r"


def test_a_failure_inside_with_ends_the_run_with_it():
    tracker = TelemetryTracker("digits")
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker, gradient_accumulation_steps=2)

    def run():
        with tracker:
            accelerator.init_trackers("project")
            train(accelerator, crash_in=2)

    with capture(("workflow", "**"), STEP) as events, pytest.raises(FloatingPointError):
        run()
    assert [(e.event[-1], e.metadata.get("step")) for e in events] == [
        ("start", None),
        ("step", 1),
        ("exception", None),
    ]
    assert events[-1].metadata["error"] == "FloatingPointError: no luck"


def test_leaving_with_ends_the_run():
    tracker = TelemetryTracker("digits")
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    with capture(("workflow", "**")) as events, tracker:
        accelerator.init_trackers("project")
    assert [e.event[-1] for e in events] == ["start", "stop"]


def test_another_tracker_ends_the_run_of_one_that_was_left(start):
    with capture(("workflow", "**")) as events:
        start("first")
        start("second").end_training()
    assert [(e.metadata["workflow"], e.event[-1]) for e in events] == [
        ("first", "start"),
        ("first", "exception"),
        ("second", "start"),
        ("second", "stop"),
    ]
    assert str(events[1].metadata["reason"]) == (
        "The run of TelemetryTracker('first') was not ended: another one has begun. "
        "Call accelerator.end_training()."
    )
    assert events[0].metadata["run_id"] != events[2].metadata["run_id"]


def test_a_second_init_trackers_is_refused(start):
    accelerator = start()
    with pytest.raises(RuntimeError) as refusal:
        accelerator.init_trackers("project")
    assert str(refusal.value) == (
        "init_trackers was called before, so accelerate would give everything to "
        "TelemetryTracker('digits') twice. Allowed: once. Make a new Accelerator for another run."
    )


def test_accelerators_with_other_trackers_are_left_alone(tmp_path):
    TelemetryTracker("digits")
    with capture() as events:
        accelerator = accelerate.Accelerator(cpu=True)
        accelerator.init_trackers("project", {"lr": 0.1})
        accelerator.end_training()
    assert events == []


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((3,), {}, "run_name must be a string, got 3 (int)."),
        (("",), {}, "run_name must not be empty."),
        (("a",), {"run_id": ""}, "run_id must not be empty."),
        (("a",), {"attempt": 0}, "attempt must be a whole number of at least 1, got 0 (int)."),
    ],
)
def test_bad_arguments_are_refused_at_once(given, options, message):
    with pytest.raises((TypeError, ValueError)) as refusal:
        TelemetryTracker(*given, **options)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ({"loss": 1.0}, "three", "step must be a whole number of at least 0, got 'three' (str)."),
        ({"loss": 1.0}, 1.5, "step must be a whole number of at least 0, got 1.5 (float)."),
        (
            [1.0],
            1,
            (
                "Values of event ('training', 'step') must be a mapping, got [1.0] (list). "
                "Write {'name': value}."
            ),
        ),
    ],
)
def test_bad_values_are_refused(start, values, step, message):
    accelerator = start()
    with capture(), pytest.raises((TypeError, ValueError)) as refusal:
        accelerator.log(values, step=step)
    assert str(refusal.value) == message
