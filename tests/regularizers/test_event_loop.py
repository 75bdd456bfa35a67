"""Coroutines that are run by a function which is not asynchronous."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import warnings
from concurrent.futures import Future

import pytest

from regularizers import own_loop
from regularizers.event_loop import run, run_all
from regularizers.waiting import Done, in_thread, is_awaitable, on_event_loop, wait_for

PLACE = contextvars.ContextVar("place", default=None)


async def at_once(value):
    return value


async def on_a_loop(value):
    await on_event_loop()
    asyncio.get_running_loop()
    return value


async def noting(notes, name, coroutine):
    notes.append(f"{name} begins")
    try:
        return await coroutine
    except BaseException as error:
        notes.append(f"{name} is ended by {type(error).__name__}")
        raise


async def failing(error, *, first=None):
    if first is not None:
        await first()
    raise error


def test_results_are_in_the_order_given():
    assert run_all([]) == []
    assert run_all([on_a_loop(1), at_once(2), on_a_loop(3), at_once(4)]) == [1, 2, 3, 4]


def test_no_loop_is_made_for_coroutines_that_need_none(monkeypatch):
    monkeypatch.setattr(asyncio, "new_event_loop", None)
    assert run_all([at_once(1), at_once(2)]) == [1, 2]


def test_one_loop_is_made_for_all_and_it_is_closed():
    async def which():
        await on_event_loop()
        return asyncio.get_running_loop()

    first, second = run_all([which(), which()])
    assert first is second
    assert first.is_closed()


def test_all_run_in_the_callers_thread():
    async def where():
        await on_event_loop()
        return threading.current_thread()

    assert run_all([where(), where()]) == [threading.current_thread()] * 2


def test_each_has_a_context_of_its_own_on_the_loop_and_before_it():
    async def set_and_look(place):
        before = PLACE.get()
        PLACE.set(place)
        await on_event_loop()
        await asyncio.sleep(0)
        return before, PLACE.get()

    PLACE.set("outside")
    assert run_all([set_and_look(1), set_and_look(2)]) == [("outside", 1), ("outside", 2)]
    assert PLACE.get() == "outside"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_what_one_raises_ends_the_others(kind):
    notes, error = [], kind("stop")
    waits = {"a": wait_for(Future(), None), "b": failing(error), "c": None}
    with pytest.raises(kind) as caught:
        run_all(noting(notes, name, job) for name, job in waits.items())
    assert caught.value is error
    assert notes == [
        "a begins",
        "b begins",
        f"b is ended by {kind.__name__}",
        "a is ended by CancelledError",
    ]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_what_one_raises_on_the_loop_ends_the_others(kind):
    notes, error, future = [], kind("stop"), Future()
    jobs = [
        noting(notes, "a", wait_for(future, None)),
        noting(notes, "b", failing(error, first=on_event_loop)),
    ]
    with pytest.raises(kind) as caught:
        run_all(jobs)
    assert caught.value is error
    assert notes[2:] == [f"b is ended by {kind.__name__}", "a is ended by CancelledError"]
    assert future.cancelled()


def test_what_does_not_heed_its_cancellation_is_closed(monkeypatch, caplog):
    async def stubborn():
        await on_event_loop()
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(30)
                notes.append("cancelled")
        finally:
            notes.append("closed")

    monkeypatch.setattr(own_loop, "GRACE", 0.01)
    notes, job = [], stubborn()
    with pytest.raises(KeyboardInterrupt):
        run_all([job, failing(KeyboardInterrupt(), first=on_event_loop)])
    assert notes == ["cancelled", "closed"]
    gc.collect()
    assert caplog.records == []


def test_what_was_not_begun_is_not_complained_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="stop"):
            run_all([wait_for(at_once(1), None), failing(ValueError("stop"))])
        gc.collect()
    assert caught == []


class Value:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 3


@pytest.mark.parametrize("seconds", [None, 30.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda: at_once(3),
        lambda: asyncio.sleep(0.001, 3),
        Value,
        lambda: in_thread(lambda: 3, "t"),
    ],
    ids=["coroutine", "sleep", "awaitable", "thread"],
)
def test_one_thing_can_be_awaited_here_and_now(make, seconds):
    assert is_awaitable(make := make())
    assert run(make, seconds) == Done(3, None)


@pytest.mark.parametrize("value", [3.0, None, "text", iter([1]), asyncio.sleep, (1, {})])
def test_values_are_not_awaited(value):
    assert not is_awaitable(value)


def test_an_exception_is_a_result_until_it_is_asked_for():
    error = KeyboardInterrupt()
    done = run(failing(error), None)
    assert done == Done(None, error)
    with pytest.raises(KeyboardInterrupt):
        done.result()


def test_what_took_longer_has_no_result():
    assert run(asyncio.sleep(30), 0.001) is None
    assert run(Future(), 0.001) is None
    assert run(at_once(1), 0.0) is None


def test_a_future_may_be_fulfilled_by_another_thread():
    future = Future()
    timer = threading.Timer(0.01, future.set_result, [3])
    timer.start()
    assert run(future, 30.0) == Done(3, None)
    timer.join()


def test_a_thread_is_a_daemon_in_a_copy_of_the_context():
    def look():
        place = PLACE.get()
        PLACE.set("inside")
        return place, threading.current_thread()

    PLACE.set("outside")
    place, thread = in_thread(look, "regularizer").result(60)
    assert (place, thread.name, thread.daemon) == ("outside", "regularizer", True)
    assert PLACE.get() == "outside"


def test_a_result_that_comes_after_the_loop_is_closed_is_thrown_away(caplog):
    gate = threading.Event()
    future = in_thread(lambda: gate.wait(60), "regularizer")
    assert run(future, 0.001) is None
    gate.set()
    assert future.result(60) is True
    assert caplog.records == []


def test_the_outer_loop_is_told_of_no_task():
    made = []

    def factory(loop, coroutine, **options):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        results = run_all([on_a_loop(1)]), run(asyncio.sleep(0, 2), 30.0)
        tasks = asyncio.all_tasks()
        asyncio.get_running_loop().set_task_factory(None)
        return results, tasks == {asyncio.current_task()}

    assert asyncio.run(main()) == (([1], Done(2, None)), True)
    assert made == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_it_works_in_an_eager_task():
    async def compute():
        task = asyncio.current_task()
        results = run_all([on_a_loop(1), at_once(2)])
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        return results

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        task = asyncio.current_task()
        results = await asyncio.create_task(compute())
        assert asyncio.current_task() is task
        return results

    assert asyncio.run(main()) == [1, 2]
