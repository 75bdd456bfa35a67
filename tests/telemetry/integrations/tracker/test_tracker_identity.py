"""Which run the events of a tracker of accelerate are in."""

import contextvars
import threading

import numpy as np
import pytest

import telemetry
from telemetry.ambient import ambient_metadata
from telemetry.runs import current_run
from telemetry.testing import capture

pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

from telemetry.integrations.accelerate import TelemetryTracker  # noqa: E402 -- needs accelerate

RUN = ("workflow", "run", "**")
STEP = ("training", "step")
EVAL = ("training", "eval")


def begin(*trackers):
    accelerator = accelerate.Accelerator(cpu=True, log_with=list(trackers))
    accelerator.init_trackers("project")
    return accelerator


def test_what_is_logged_does_not_change_which_run_and_step_it_is():
    accelerator = begin(TelemetryTracker("digits", run_id="r"))
    logged = {"run_id": "other", "attempt": "7", "split": "mine", "step": 9, "note": "text"}
    with capture(STEP, EVAL) as events:
        accelerator.log({"loss": 1.0, "val_loss": 2.0, **logged}, step=1)
    accelerator.end_training()
    place = {"run_id": "r", "attempt": 1, "step": 1, "note": "text"}
    assert [e.metadata for e in events] == [place, {**place, "split": "val"}]


def test_log_kwargs_do_not_either():
    accelerator = begin(TelemetryTracker("digits", run_id="r"))
    with capture(EVAL) as events:
        given = {"run_id": "other", "attempt": 7, "split": "mine", "note": "text"}
        accelerator.log({"val_loss": 2.0}, log_kwargs={"telemetry": given})
    accelerator.end_training()
    assert events[0].metadata == {"run_id": "r", "attempt": 1, "split": "val", "note": "text"}


def test_values_that_only_look_like_numbers_are_metadata():
    accelerator = begin(TelemetryTracker("digits", run_id="r"))
    odd = {"name": np.str_("x"), "day": np.datetime64("2020-01-01"), "done": True}
    with capture(STEP) as events:
        accelerator.log({"loss": np.float32(0.5), "epoch": 10**400, **odd}, step=1)
    accelerator.end_training()
    assert events[0].measurements == {"loss": np.float32(0.5)}
    assert events[0].metadata == {
        "run_id": "r",
        "attempt": 1,
        "step": 1,
        "epoch": 10**400,
        **odd,
    }


def test_values_are_checked_when_nobody_listens_too():
    accelerator = begin(TelemetryTracker("digits"))
    with pytest.raises(TypeError, match="must be a mapping"):
        accelerator.log([1.0], step=1)
    accelerator.end_training()


def test_two_trackers_in_one_accelerator_are_refused():
    with capture() as events, pytest.raises(ValueError, match="2 TelemetryTrackers") as refusal:
        begin(TelemetryTracker("a"), TelemetryTracker("b"))
    assert str(refusal.value) == (
        "log_with has 2 TelemetryTrackers, so every event would come 2 times. Allowed: one. "
        "Attach several handlers instead."
    )
    assert events == []


def test_blocks_that_end_before_the_run_leave_nothing_behind():
    with capture(), telemetry.context(epoch=1), telemetry.span(("work",)):
        accelerator = begin(TelemetryTracker("digits"))
    accelerator.end_training()
    assert ambient_metadata() is None
    with capture(("work", "start")) as events, telemetry.span(("work",)):
        pass
    assert events[0].metadata["telemetry_span_context"].parent_id is None


def test_a_run_that_another_thread_has_ended_is_over_here():
    def main():
        accelerator = begin(TelemetryTracker("first"))
        thread = threading.Thread(target=accelerator.end_training)
        thread.start()
        thread.join()
        assert current_run() is None
        begin(TelemetryTracker("second")).end_training()

    with capture(RUN) as events:
        contextvars.copy_context().run(main)
    assert [(e.metadata["workflow"], e.event[-1]) for e in events] == [
        ("first", "start"),
        ("first", "stop"),
        ("second", "start"),
        ("second", "stop"),
    ]
    assert events[0].metadata["run_id"] != events[2].metadata["run_id"]
