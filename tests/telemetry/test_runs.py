"""The spans of a run and of its stages."""

import asyncio
import os
import threading

import pytest

import telemetry
from telemetry.runs import CURRENT_RUN
from telemetry.testing import capture


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in os.environ:
        if name.startswith(("TORCHELASTIC", "SLURM")):
            monkeypatch.delenv(name)


@pytest.fixture
def seen():
    with capture() as events:
        yield events


def names(events):
    return [".".join(event.event) for event in events]


def test_a_run_and_its_stages_are_a_tree_of_spans(seen):
    with telemetry.workflow_run("digits", run_id="r1", seed=7) as run:
        with telemetry.stage_run("load"):
            pass
        with telemetry.stage_run("train", module="mine", epochs=3):
            telemetry.emit_step(loss=1.0, step=1)
    assert names(seen) == [
        "workflow.run.start",
        "stage.run.start",
        "stage.run.stop",
        "stage.run.start",
        "training.step",
        "stage.run.stop",
        "workflow.run.stop",
    ]
    spans = [event.metadata["telemetry_span_context"] for event in seen if "run" in event.event]
    root, load, _, train, _, end = spans
    assert end == root == run.context
    assert (root.parent_id, root.trace_id) == (None, root.span_id)
    assert load.parent_id == train.parent_id == root.span_id
    assert load.trace_id == train.trace_id == root.span_id
    assert load.span_id != train.span_id
    told = {"workflow": "digits", "run_id": "r1", "attempt": 1, "seed": 7}
    for event in (seen[0], seen[-1]):
        assert {key: event.metadata.get(key) for key in told} == told
    assert seen[1].metadata["module"] == __name__
    assert {key: seen[5].metadata[key] for key in ("stage", "module", "epochs", "success")} == {
        "stage": "train",
        "module": "mine",
        "epochs": 3,
        "success": True,
    }


def test_everything_inside_carries_the_runs_id_and_attempt(seen):
    with telemetry.workflow_run("w", run_id="r1", attempt=3), telemetry.stage_run("s"):
        telemetry.execute(("smartclip", "clip", "stop"), {"scale": 1.0})
    assert {(event.metadata["run_id"], event.metadata["attempt"]) for event in seen} == {("r1", 3)}


def test_the_end_tells_what_the_start_told(seen):
    with telemetry.workflow_run("w"):
        pass
    with pytest.raises(ValueError, match="a problem"), telemetry.workflow_run("w"):
        raise ValueError("a problem")
    start, stop, again, failed = seen
    assert start.metadata == stop.metadata
    assert again.metadata.items() <= failed.metadata.items()
    assert {"host", "pid", "python", "world_size"} <= start.metadata.keys()


def test_what_the_user_says_of_the_process_wins(seen):
    with telemetry.workflow_run("w", host="a name of mine", git_commit="abc"):
        pass
    assert seen[0].metadata["host"] == "a name of mine"
    assert seen[0].metadata["git_commit"] == "abc"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ValueError("no data"), "error", "ValueError: no data"),
        (KeyError("x"), "error", "KeyError: 'x'"),
        (KeyboardInterrupt(), "exit", "KeyboardInterrupt"),
        (SystemExit(3), "exit", "SystemExit: 3"),
        (asyncio.CancelledError(), "exit", "CancelledError"),
    ],
)
def test_an_exception_is_said_in_words_and_goes_on(seen, error, kind, words):
    with (
        pytest.raises(type(error)) as caught,
        telemetry.workflow_run("w"),
        telemetry.stage_run("s"),
    ):
        raise error
    assert caught.value is error
    assert names(seen)[2:] == ["stage.run.exception", "workflow.run.exception"]
    for event in seen[2:]:
        assert event.metadata["error"] == words
        assert event.metadata["kind"] == kind
        assert event.metadata["reason"] is error
        assert "success" not in event.metadata
    assert telemetry.runs.CURRENT_RUN.get() is None


def test_words_are_bounded_and_never_fail(seen):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    for error in (MuteError(), ValueError("x" * 1_000_000)):
        with pytest.raises(type(error)), telemetry.stage_run("s"):
            raise error
    assert seen[1].metadata["error"] == "MuteError: <unprintable MuteError object>"
    assert len(seen[3].metadata["error"]) == len("ValueError: ") + 2000


def test_a_stage_can_say_that_it_did_not_succeed(seen):
    with telemetry.stage_run("s") as stage:
        stage.annotate(success=False, error="no data")
    assert seen[1].metadata["success"] is False
    assert seen[1].metadata["error"] == "no data"


@pytest.mark.parametrize("success", [False, True])
def test_what_is_given_of_a_stages_success_stays(seen, success):
    with telemetry.stage_run("s", success=success):
        pass
    assert seen[1].metadata["success"] is success


def test_inside_another_run_the_id_is_the_outer_ones(seen):
    with telemetry.workflow_run("outer", run_id="r1", attempt=2) as outer:
        with telemetry.workflow_run("inner") as inner:
            assert CURRENT_RUN.get() is inner
            telemetry.emit_step(step=1)
        assert CURRENT_RUN.get() is outer
        telemetry.emit_step(step=2)
    assert (inner.run_id, inner.attempt) == ("r1", 2)
    assert inner.context.parent_id == outer.context.span_id
    assert all(event.metadata["run_id"] == "r1" for event in seen)


def test_a_run_inside_another_with_an_id_of_its_own_has_its_own_attempts(seen):
    with telemetry.workflow_run("outer", run_id="r1", attempt=2):
        with telemetry.workflow_run("inner", run_id="r2") as inner:
            telemetry.emit_step(step=1)
        telemetry.emit_step(step=2)
    assert (inner.run_id, inner.attempt) == ("r2", 1)
    steps = [event.metadata for event in seen if event.event == ("training", "step")]
    assert [(md["run_id"], md["attempt"]) for md in steps] == [("r2", 1), ("r1", 2)]


def test_the_context_around_names_the_run(seen):
    with (
        telemetry.context(run_id="from around", attempt=4),
        telemetry.workflow_run("w") as run,
    ):
        pass
    assert (run.run_id, run.attempt) == ("from around", 4)
    assert seen[0].metadata["run_id"] == "from around"


def test_several_runs_in_a_process_have_different_ids():
    ids = set()
    for _ in range(3):
        with telemetry.workflow_run("w") as run:
            ids.add(run.run_id)
    assert len(ids) == 3


def test_the_context_is_as_it_was_whatever_happened():
    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError), telemetry.workflow_run("w"):
        raise ZeroDivisionError
    for event in ("start", "stop"):
        with (
            telemetry.attach("interrupting", ("workflow", "run", event), fail),
            pytest.raises(KeyboardInterrupt),
            telemetry.workflow_run("w"),
        ):
            pass
    assert CURRENT_RUN.get() is None
    with capture() as events:
        telemetry.emit_step(step=1)
    assert events[0].metadata == {"step": 1}


def test_a_run_is_entered_once():
    run = telemetry.workflow_run("w", run_id="r1")
    with run, pytest.raises(RuntimeError, match="has begun already"), run:
        pass
    with pytest.raises(RuntimeError, match="has begun already"), run:
        pass
    assert CURRENT_RUN.get() is None
    with capture() as events:
        telemetry.emit_step(step=1)
    assert "run_id" not in events[0].metadata


def test_async_with(seen):
    async def main():
        async with telemetry.workflow_run("w", run_id="r1"), telemetry.stage_run("s"):
            await asyncio.gather(step(1), step(2))

    async def step(number):
        await asyncio.sleep(0)
        telemetry.emit_step(step=number)

    asyncio.run(main())
    assert names(seen)[-2:] == ["stage.run.stop", "workflow.run.stop"]
    assert all(event.metadata["run_id"] == "r1" for event in seen)


def test_a_cancelled_run_ends_as_an_exception(seen):
    async def main():
        async with telemetry.workflow_run("w"):
            await asyncio.sleep(600)

    async def cancel():
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert names(seen) == ["workflow.run.start", "workflow.run.exception"]
    assert seen[1].metadata["kind"] == "exit"


def test_each_call_of_a_decorated_function_is_a_run(seen):
    @telemetry.workflow_run("w", seed=7)
    def train(steps, *, fail=False):
        with telemetry.stage_run("s"):
            if fail:
                raise ValueError("a problem")
        return steps

    assert train(3) == 3
    with pytest.raises(ValueError, match="a problem"):
        train(3, fail=True)
    runs = [event for event in seen if event.event[0] == "workflow"]
    assert [event.event[-1] for event in runs] == ["start", "stop", "start", "exception"]
    ids = [event.metadata["run_id"] for event in runs]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert all(event.metadata["seed"] == 7 for event in runs)


def test_coroutine_functions_and_methods_are_decorated(seen):
    class Trainer:
        @telemetry.workflow_run("w", run_id="r1")
        async def train(self):
            telemetry.emit_step(step=1)

        @staticmethod
        @telemetry.stage_run("s")
        def load():
            return 3

    asyncio.run(Trainer().train())
    assert Trainer.load() == 3
    assert seen[1].metadata == {"run_id": "r1", "attempt": 1, "step": 1}
    assert seen[3].metadata["module"] == __name__


def test_generators_cannot_be_decorated():
    def numbers():
        yield 1

    async def asynchronous():
        yield 1

    for span in (telemetry.workflow_run("w"), telemetry.stage_run("s")):
        for function in (numbers, asynchronous, staticmethod(numbers), classmethod(numbers)):
            with pytest.raises(TypeError, match=r"a generator function: between two items"):
                span(function)
        with pytest.raises(TypeError, match="got 3"):
            span(3)


def test_a_new_thread_starts_without_the_run(seen):
    with telemetry.workflow_run("w", run_id="r1"):
        thread = threading.Thread(target=lambda: telemetry.emit_step(step=1))
        thread.start()
        thread.join()
    assert seen[1].metadata == {"step": 1}


def test_a_run_by_hand_and_a_bus_of_its_own(bus, heard):
    run = telemetry.workflow_run("w", run_id="r1", registry=bus)
    with capture() as elsewhere:
        run.begin()
        run.stop()
    assert [event.event[-1] for event in heard] == ["start", "stop"]
    assert heard[1].metadata["run_id"] == "r1"
    assert elsewhere == []


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"workflow": ""}, ValueError, "workflow must not be empty."),
        ({"workflow": 3}, TypeError, "workflow must be a string, got 3 (int)."),
        ({"run_id": ""}, ValueError, "run_id must not be empty."),
        ({"run_id": 7}, TypeError, "run_id must be a string, got 7 (int)."),
        (
            {"attempt": 0},
            ValueError,
            "attempt must be a whole number of at least 1, got 0 (int).",
        ),
        (
            {"attempt": "2"},
            TypeError,
            "attempt must be a whole number of at least 1, got '2' (str).",
        ),
    ],
)
def test_a_bad_argument_is_refused_when_the_run_is_made(given, error, said):
    with pytest.raises(error) as caught:
        telemetry.workflow_run(**{"workflow": "w", **given})
    assert str(caught.value) == said


@pytest.mark.parametrize("registry", [None, "bus", telemetry])
@pytest.mark.parametrize("make", [telemetry.workflow_run, telemetry.stage_run])
def test_a_bus_that_is_none_is_refused_when_the_run_is_made(make, registry):
    with pytest.raises(TypeError) as caught:
        make("x", registry=registry)
    assert str(caught.value) == (
        f"registry must be a telemetry.Registry, got {registry!r} ({type(registry).__name__}). "
        "Leave it out for the default one."
    )


@pytest.mark.parametrize(
    "given", [{"stage": ""}, {"stage": None}, {"stage": "s", "module": ""}], ids=str
)
def test_a_stage_has_a_name(given):
    with pytest.raises((TypeError, ValueError), match=r"^(stage|module) must "):
        telemetry.stage_run(**given)


def test_a_context_that_names_the_run_badly_is_told():
    with (
        telemetry.context(run_id=7),
        pytest.raises(TypeError, match="run_id of the context must be a string, got 7"),
        telemetry.workflow_run("w"),
    ):
        pass
