"""What the callbacks of all frameworks share."""

import contextvars
import threading

import pytest

import telemetry
from telemetry.ambient import ambient_metadata
from telemetry.integrations.fit import Fit
from telemetry.testing import capture

RUN = ("workflow", "run", "**")


def test_a_place_outside_of_a_stage_is_nowhere():
    fit = Fit("digits")
    fit.at(step=1)
    assert ambient_metadata() is None
    fit.begin("fit", module="m")
    fit.end()
    fit.at(step=2)
    assert ambient_metadata() is None


@pytest.mark.parametrize(
    "state",
    [
        {"run_id": 5, "attempt": 1},
        {"run_id": "", "attempt": 1},
        {"run_id": "r", "attempt": "2"},
        {"run_id": "r", "attempt": 0},
        {"run_id": "r", "attempt": True},
        {"attempt": 3},
        {"other": 1},
        ["run_id"],
        "run_id",
        7,
    ],
    ids=repr,
)
def test_a_state_that_tells_of_no_run_is_logged_and_left(state, caplog):
    fit = Fit("digits")
    fit.load_state_dict(state)
    assert f"The checkpoint has {state!r} where run_id and attempt should be" in caplog.text
    with capture(RUN) as events:
        fit.begin("fit", module="m")
        fit.end()
    assert events[0].metadata["run_id"] not in ("r", 5, "")
    assert events[0].metadata["attempt"] == 1


@pytest.mark.parametrize("state", [{}, None])
def test_a_state_from_before_the_first_run_is_nothing_to_talk_about(state, caplog):
    Fit("digits").load_state_dict(state)
    assert caplog.text == ""


def test_a_state_without_an_attempt_is_that_of_a_first_one():
    fit = Fit("digits")
    fit.load_state_dict({"run_id": "r"})
    with capture(RUN) as events:
        fit.begin("fit", module="m")
        fit.end()
    assert (events[0].metadata["run_id"], events[0].metadata["attempt"]) == ("r", 2)


def test_what_a_failed_step_has_measured_is_not_in_the_next_training():
    fit = Fit("digits")
    fit.begin("fit", module="m")
    fit.timer.work(batch_size=8)
    fit.begin("validate", module="m", trains=False)
    fit.leave()
    fit.timer.work(batch_size=8)
    fit.end(ValueError("no"))
    fit.begin("fit", module="m")
    fit.timer.work(batch_size=2)
    assert fit.timer.step()["batch_size"] == 2
    fit.end()


def test_a_block_around_that_ends_before_the_run_does_not_come_back():
    fit = Fit("digits")
    block = telemetry.context(phase="warm-up")
    block.__enter__()
    fit.begin("fit", module="m")
    fit.at(step=1, epoch=1)
    block.__exit__(None, None, None)
    fit.end()
    assert ambient_metadata() is None


def test_a_run_that_has_ended_in_another_thread_is_over_here():
    def main():
        first, second = Fit("digits"), Fit("digits")
        first.begin("fit", module="m")
        thread = threading.Thread(target=first.end)
        thread.start()
        thread.join()
        second.begin("fit", module="m")
        second.end()

    with capture(RUN) as events:
        contextvars.copy_context().run(main)
    assert [e.event[-1] for e in events] == ["start", "stop"] * 2
    assert events[0].metadata["run_id"] != events[2].metadata["run_id"]
