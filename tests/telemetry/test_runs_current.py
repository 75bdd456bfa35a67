"""Which run the code is in, when runs are not left in the order in which they were entered."""

import contextvars
import threading

import pytest

import telemetry
from telemetry.ambient import ambient_metadata
from telemetry.runs import CURRENT_RUN, ambient_identity, current_run
from telemetry.span_context import CURRENT
from telemetry.testing import capture


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    assert ambient_metadata() is None
    assert current_run() is None
    assert CURRENT.get() is None


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_run_that_was_opened_is_that_of_what_follows():
    with capture() as events:
        run = telemetry.workflow_run("digits", run_id="r")
        run.open()
        assert current_run() is run
        telemetry.emit_step(loss=1.0, step=1)
        with telemetry.span(("work",)):
            pass
        run.close()
    assert [".".join(e.event) for e in events] == [
        "workflow.run.start",
        "training.step",
        "work.start",
        "work.stop",
        "workflow.run.stop",
    ]
    assert {e.metadata["run_id"] for e in events} == {"r"}
    parent = events[2].metadata["telemetry_span_context"].parent_id
    assert parent == events[0].metadata["telemetry_span_context"].span_id


def test_a_run_that_was_opened_ends_with_an_exception():
    with capture(("workflow", "run", "exception")) as events:
        run = telemetry.workflow_run("digits")
        run.open()
        run.close(OSError("no space left"))
    assert events[0].metadata["error"] == "OSError: no space left"


def test_blocks_around_a_run_may_end_before_it():
    run = telemetry.workflow_run("digits", run_id="r")
    with capture(), telemetry.context(epoch=1), telemetry.span(("work",)):
        run.open()
    run.close()


def test_blocks_inside_a_run_may_end_after_it():
    run = telemetry.workflow_run("digits", run_id="r")
    run.open()
    with telemetry.context(epoch=1):
        assert ambient_metadata() == {"run_id": "r", "attempt": 1, "epoch": 1}
        run.close()
        assert ambient_metadata() == {"epoch": 1}


def test_a_run_that_cannot_begin_is_not_entered():
    def crash(*_):
        raise KeyboardInterrupt

    run = telemetry.workflow_run("digits")
    attached = telemetry.attach("crash", ("workflow", "run", "start"), crash)
    with attached, pytest.raises(KeyboardInterrupt):
        run.open()
    assert run.ended


@pytest.mark.parametrize("opened", [True, False])
def test_a_run_that_has_ended_in_another_thread_is_none(opened):
    def main():
        run = telemetry.workflow_run("digits", run_id="r")
        run.open() if opened else run.__enter__()
        assert not run.ended
        in_a_thread(run.close if opened else lambda: run.__exit__(None, None, None))
        assert run.ended
        assert current_run() is None
        assert ambient_identity() == {}
        with telemetry.workflow_run("digits") as second:
            assert second.run_id != "r"
            assert current_run() is second
            assert ambient_identity() == {"run_id": second.run_id, "attempt": 1}

    contextvars.copy_context().run(main)


def test_the_run_around_one_that_has_ended_in_another_thread_is_the_current_one():
    def main():
        with telemetry.workflow_run("digits", run_id="outer") as outer:
            inner = telemetry.workflow_run("digits", run_id="inner")
            inner.__enter__()
            in_a_thread(lambda: inner.__exit__(None, None, None))
            assert current_run() is outer
            assert ambient_identity() == {"run_id": "outer", "attempt": 1}

    contextvars.copy_context().run(main)


def test_runs_that_have_ended_in_other_threads_are_not_kept():
    def main():
        for _ in range(100):
            run = telemetry.workflow_run("digits")
            run.open()
            in_a_thread(run.close)
        assert CURRENT_RUN.get() is run
        assert run.around is None

    contextvars.copy_context().run(main)
