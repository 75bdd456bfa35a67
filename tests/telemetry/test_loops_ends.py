"""`track`: nothing of a loop stays behind, however it is left, and loops in loops."""

import contextlib
import contextvars
import gc
import threading

import pytest

import telemetry
from telemetry.integrations.fit import Fit
from telemetry.passes import Pass
from telemetry.testing import capture


def here():
    """What the context says where this is called."""
    with capture(("here",)) as events:
        telemetry.execute(("here",), {})
    return dict(events[0].metadata)


def places(loop):
    return [here() for _ in loop]


def steps(loop):
    return [place["step"] for place in places(loop)]


class Stream:
    """Batches that nobody knows the number of."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


# How it is left


@pytest.fixture
def around():
    with telemetry.context(run_id="r", step=0):
        yield
        assert here() == {"run_id": "r", "step": 0}


@pytest.mark.usefixtures("around")
def test_the_context_is_as_it_was_after_the_end():
    assert steps(telemetry.track("ab")) == [1, 2]
    assert here() == {"run_id": "r", "step": 0}


@pytest.mark.usefixtures("around")
def test_the_context_is_as_it_was_after_a_break():
    for _ in telemetry.track("ab"):
        break
    assert here() == {"run_id": "r", "step": 0}


@pytest.mark.usefixtures("around")
def test_the_context_is_as_it_was_after_an_exception_in_the_loop():
    def train():
        for _ in telemetry.track("ab"):
            raise KeyError("body")

    with pytest.raises(KeyError) as kept:  # with its traceback, and the frame of the loop
        train()
    assert here() == {"run_id": "r", "step": 0}
    assert kept.tb


@pytest.mark.usefixtures("around")
@pytest.mark.parametrize("error", [RuntimeError("disk"), KeyboardInterrupt()])
def test_the_context_is_as_it_was_after_a_failed_draw(error):
    def draw():
        yield 1
        raise error

    batches = telemetry.track(draw())
    with pytest.raises(type(error)) as raised:
        steps(batches)
    assert raised.value is error
    assert here() == {"run_id": "r", "step": 0}


@pytest.mark.usefixtures("around")
def test_the_context_is_as_it_was_when_the_generator_is_closed():
    batches = iter(telemetry.track("abc"))
    next(batches)
    next(batches)
    assert here()["step"] == 2
    batches.close()
    assert here() == {"run_id": "r", "step": 0}


def test_outside_of_any_context_none_is_left():
    assert steps(telemetry.track("a")) == [1]
    assert here() == {}


def test_a_loop_in_a_thread_leaves_that_of_the_thread_around_alone():
    seen = {}

    def other():
        seen["before"] = here()
        seen["steps"] = steps(telemetry.track("abc"))

    for _ in telemetry.track("ab"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        break
    assert seen == {"before": {}, "steps": [1, 2, 3]}


def test_a_generator_that_another_thread_closes_changes_nothing_there():
    batches = iter(telemetry.track("ab"))
    contextvars.copy_context().run(next, batches)
    seen = []

    def close():
        with telemetry.context(step=40):
            batches.close()
            seen.append(here())

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert seen == [{"step": 40}]


# Loops in loops


def test_a_loop_in_a_loop_has_steps_of_its_own():
    seen = []
    for _ in telemetry.track("ab", epoch=1, total_epochs=9):
        seen.append(here())
        seen += places(telemetry.track("xyz"))
        seen.append(here())
    outer = [{"epoch": 1, "total_steps": 18, "step": step} for step in (1, 2)]
    inner = [{"epoch": 1, "total_steps": 3, "step": step} for step in (1, 2, 3)]
    assert seen == [outer[0], *inner, outer[0], outer[1], *inner, outer[1]]
    assert here() == {}


def test_a_loop_that_was_left_open_inside_does_not_outlive_the_one_around():
    left_open = []
    for _ in telemetry.track("ab", epoch=1):
        left_open.append(iter(telemetry.track("xy", epoch=8, total_epochs=9)))
        next(left_open[-1])
        assert here()["epoch"] == 8
    assert here() == {}
    left_open.clear()
    gc.collect()
    assert here() == {}


def test_loops_over_the_same_batches_do_not_get_in_each_others_way():
    assert steps(telemetry.track(telemetry.track("abc", epoch=1), epoch=1)) == [1, 2, 3]
    assert here() == {}


def test_the_total_of_a_loop_is_not_that_of_a_loop_inside_it():
    for _ in telemetry.track("a", epoch=1, total_epochs=9):
        assert places(telemetry.track(Stream(2))) == [
            {"epoch": 1, "step": 1},
            {"epoch": 1, "step": 2},
        ]
        assert here() == {"epoch": 1, "total_steps": 9, "step": 1}
        with capture(("training", "timing")) as events:
            list(telemetry.track(Stream(1)))
        assert events[0].metadata == {"epoch": 1, "step": 1}


def test_the_total_of_a_block_around_stays():
    with telemetry.context(total_steps=40):
        assert places(telemetry.track(Stream(1))) == [{"total_steps": 40, "step": 1}]


def test_a_plain_evaluation_inside_belongs_to_the_step():
    seen = []
    for _ in telemetry.track("ab"):
        seen += [here()["step"] for _ in range(2)]
    assert seen == [1, 1, 2, 2]


def test_batches_drawn_one_by_one_take_the_context_of_where_they_are_drawn():
    batches = iter(telemetry.track(Stream(4)))
    seen = []
    for epoch in (1, 2):
        with telemetry.context(epoch=epoch):
            for _ in range(2):
                next(batches)
                seen.append(here())
        assert here() == {}
    assert seen == [
        {"epoch": 1, "step": 1},
        {"epoch": 1, "step": 2},
        {"epoch": 2, "step": 3},
        {"epoch": 2, "step": 4},
    ]
    batches.close()
    assert here() == {}


def test_a_copied_context_keeps_its_step_while_the_loop_goes_on():
    copies = [contextvars.copy_context() for _ in telemetry.track("abc")]
    assert [copy.run(here)["step"] for copy in copies] == [1, 2, 3]


# Blocks between one draw and the next


def shards():
    """Batches from two files, each of which is opened in a block."""
    for shard in (0, 1):
        with telemetry.context(shard=shard):
            telemetry.execute(("opened",), {})
            yield
            yield


def leave(loop):
    for number, _ in enumerate(loop, start=1):
        if number == 2:
            break


def fail(loop):
    for number, _ in enumerate(loop, start=1):
        if number == 2:
            raise KeyError


@pytest.mark.parametrize("end", [leave, fail, places])
def test_a_source_with_blocks_leaves_nothing_behind(end):
    with contextlib.suppress(KeyError):
        end(telemetry.track(shards(), epoch=1))
    assert here() == {}
    with contextlib.closing(shards()) as held, contextlib.suppress(KeyError):
        end(telemetry.track(held, epoch=1))
        assert "step" not in here()
    assert here() == {}


def test_what_a_source_does_between_two_blocks_is_of_the_step_in_progress():
    with capture(("opened",)) as events:
        steps(telemetry.track(shards(), epoch=1))
    assert [event.metadata for event in events] == [
        {"epoch": 1, "step": 1, "shard": 0},
        {"epoch": 1, "step": 3, "shard": 1},
    ]


def test_a_source_that_was_begun_before_the_loop_does_not_take_its_step_away():
    source = shards()
    next(source)
    seen = places(telemetry.track(source))
    assert [(place["step"], place["shard"]) for place in seen] == [(1, 0), (2, 1), (3, 1)]
    assert here() == {}


def test_a_run_that_begins_after_the_first_batch_does_not_freeze_it():
    batches = iter(telemetry.track("abc", epoch=1))
    next(batches)
    with telemetry.workflow_run("w", run_id="r"):
        assert steps(batches) == [2, 3]
        assert here() == {"run_id": "r", "attempt": 1}
    assert here() == {}


def test_a_block_around_a_draw_does_not_freeze_the_step():
    batches = iter(telemetry.track("abcd", epoch=1))
    next(batches)
    seen = []
    for _ in range(3):
        with telemetry.context(phase="data"):
            next(batches)
            seen.append(here())
        seen.append(here())
    of_data = [{"epoch": 1, "step": step, "phase": "data"} for step in (2, 3, 4)]
    after = [{"epoch": 1, "step": step} for step in (2, 3, 4)]
    assert seen == [place for pair in zip(of_data, after, strict=True) for place in pair]
    batches.close()
    assert here() == {}


def test_a_block_that_outlives_the_loop_does_not_bring_it_back():
    block = telemetry.context(phase="late")
    for batch in telemetry.track("abc"):
        if batch == "b":
            block.__enter__()
    assert here() == {"phase": "late"}
    block.__exit__()
    assert here() == {}


def test_a_callback_that_begins_in_a_loop_does_not_bring_it_back():
    def fit_in_a_loop():
        fit = Fit("digits", run_id="r")
        batches = iter(telemetry.track("abc", epoch=9))
        next(batches)
        fit.begin("fit", module="example")
        fit.at(step=1, epoch=1)
        list(batches)
        fit.end()

    fit_in_a_loop()
    assert here() == {}
    with telemetry.workflow_run("around", run_id="r", attempt=3):
        fit_in_a_loop()
        assert here() == {"run_id": "r", "attempt": 3}


def test_work_on_an_earlier_step_keeps_it_while_the_loop_goes_on():
    def later():
        with telemetry.context(phase="late"):
            inside = here()
        return inside, here()

    copies = []
    for _ in telemetry.track("abc"):
        with telemetry.context(phase="early"):
            copies.append(contextvars.copy_context())
    seen = [copy.run(later) for copy in copies]
    assert seen[0] == (
        {"total_steps": 3, "step": 1, "phase": "late"},
        {"total_steps": 3, "step": 1, "phase": "early"},
    )
    assert [after["step"] for _, after in seen] == [1, 2, 3]


def test_blocks_in_blocks_may_be_deep():
    batches = iter(telemetry.track(iter(int, 1)))
    next(batches)
    with contextlib.ExitStack() as blocks:
        for depth in range(1500):
            blocks.enter_context(telemetry.context(depth=depth))
        next(batches)
    assert here() == {"step": 2}
    batches.close()
    assert here() == {}


# The same object in a loop over it


def test_a_look_at_the_first_batch_inside_the_loop_changes_nothing():
    batches = telemetry.track("abcd", epoch=1)
    seen = []
    for _ in batches:
        assert next(iter(batches)) == "a"
        seen.append((batches.epoch, batches.step, here()["step"]))
    assert seen == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4)]
    assert [(batches.epoch, batches.step) for _ in batches] == [(2, step) for step in (5, 6, 7, 8)]


def test_a_look_that_is_closed_late_does_not_set_the_step_back():
    batches = telemetry.track("abc", epoch=1)
    seen, look = [], None
    for batch in batches:
        if batch == "a":
            look = iter(batches)
            next(look)
        if batch == "c":
            look.close()
        seen.append(batches.step)
    assert seen == [1, 2, 3]


def test_a_pass_that_is_closed_late_does_not_set_back_the_next():
    batches = telemetry.track("abc", epoch=1)
    abandoned = iter(batches)
    next(abandoned)
    next(abandoned)
    assert [(batches.epoch, batches.step) for _ in batches] == [(1, 1), (1, 2), (1, 3)]
    abandoned.close()
    assert [(batches.epoch, batches.step) for _ in batches] == [(2, 4), (2, 5), (2, 6)]


def test_passes_that_are_over_are_forgotten():
    def count():
        gc.collect()
        return sum(type(thing) is Pass for thing in gc.get_objects())

    batches, before = telemetry.track("ab"), count()
    for _ in range(20):
        list(batches)
        next(iter(batches))
    assert count() <= before + 1
