"""Ctrl-C, cancellation, and whatever else is no failure of one regularizer."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future

import numpy as np
import pytest

from regularizers import RegularizerError, RegularizerSpec, custom_loss
from telemetry.testing import capture


def zero(data, logprobs):
    return 0.0


async def patient(data, logprobs):
    await asyncio.sleep(600)


def compute(*functions, **options):
    specs = [RegularizerSpec(function, 1.0, str(i)) for i, function in enumerate(functions)]
    return custom_loss(None, np.ones(2), zero, regularizers=specs, **options)


def raising(error):
    def fail(data, logprobs):
        raise error

    return fail


def raising_later(error):
    async def fail(data, logprobs):
        await asyncio.sleep(0)
        raise error

    return fail


def failing_future(error):
    future = Future()
    future.set_exception(error)
    return lambda data, logprobs: future


def ends(events):
    """How each regularizer's span ended, and that each that started ended once."""
    starts = Counter(e.metadata["telemetry_span_context"] for e in events if e.event[-1] == "start")
    stops = Counter(e.metadata["telemetry_span_context"] for e in events if e.event[-1] != "start")
    assert starts == stops
    assert set(starts.values()) == {1}
    return {
        e.metadata["regularizer_name"]: type(e.metadata.get("reason"))
        for e in events
        if e.event[:2] == ("regularizer", "compute") and e.event[-1] != "start"
    }


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (raising, {}),
        (raising, {"parallel": True}),
        (raising_later, {}),
        (failing_future, {}),
        (failing_future, {"parallel": True}),
    ],
    ids=["sequence", "thread", "coroutine", "future", "future in a thread"],
)
def test_what_is_no_exception_reaches_the_caller_and_the_others_are_cancelled(make, options, kind):
    error = kind("stop")
    started = time.monotonic()
    with capture() as events, pytest.raises(kind) as caught:
        compute(patient, lambda d, x: patient(d, x), make(error), patient, **options)  # noqa: PLW0108 -- a plain function
    assert caught.value is error
    assert time.monotonic() - started < 300
    how = ends(events)
    assert how.pop("2") is kind
    assert set(how.values()) <= {asyncio.CancelledError}
    assert events[-1].metadata["reason"] is error
    assert events[-1].metadata["kind"] == "exit"


def test_of_several_that_interrupt_one_reaches_the_caller(caplog):
    first, second = KeyboardInterrupt("first"), KeyboardInterrupt("second")
    with capture() as events, pytest.raises(KeyboardInterrupt) as caught:
        compute(raising_later(first), raising_later(second), raising_later(SystemExit()), patient)
    assert caught.value is first
    assert ends(events)["0"] is KeyboardInterrupt
    assert caplog.records == []


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_the_end_of_an_iteration_is_a_failure_like_any_other(kind, parallel):
    error = kind("exhausted")
    with pytest.raises(RegularizerError) as caught:
        compute(raising(error), failing_future(error), parallel=parallel)
    assert list(caught.value.failures.values()) == [error, error]


def test_python_turns_the_end_of_an_iteration_in_a_coroutine_into_an_error():
    error = StopIteration("exhausted")
    with pytest.raises(RegularizerError) as caught:
        compute(raising_later(error))
    assert type(caught.value.__cause__) is RuntimeError
    assert caught.value.__cause__.__cause__ is error


@pytest.mark.parametrize(
    ("make", "options"),
    [(raising_later, {}), (raising, {"parallel": True}), (failing_future, {})],
    ids=["coroutine", "thread", "future"],
)
def test_a_cancellation_of_its_own_is_the_failure_of_a_regularizer(make, options):
    error = asyncio.CancelledError("mine")
    with capture() as events, pytest.raises(RegularizerError) as caught:
        compute(make(error), zero, **options)
    assert caught.value.failures == {"0": error}
    assert ends(events) == {"0": asyncio.CancelledError, "1": type(None)}


def test_a_task_that_cancels_itself_has_failed():
    async def give_up(data, logprobs):
        asyncio.current_task().cancel()
        await asyncio.sleep(30)

    with pytest.raises(RegularizerError) as caught:
        compute(give_up, zero)
    assert type(caught.value.__cause__) is asyncio.CancelledError


def test_a_future_that_was_cancelled_has_failed():
    future = Future()
    future.cancel()
    with pytest.raises(RegularizerError) as caught:
        compute(lambda data, logprobs: future, zero)
    assert type(caught.value.__cause__) is FutureCancelledError


def test_a_cancellation_raised_in_the_callers_thread_is_the_callers():
    """A plain function is no task of its own, so it can only mean the one that called."""

    async def main():
        compute(raising(asyncio.CancelledError()))

    with capture() as events, pytest.raises(asyncio.CancelledError):
        compute(raising(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert ends(events) == {"0": asyncio.CancelledError}


def test_all_tasks_may_be_cancelled_by_one_of_them():
    async def cancel_all(data, logprobs):
        for task in asyncio.all_tasks():
            task.cancel()

    with capture() as events, pytest.raises(asyncio.CancelledError):
        compute(cancel_all, patient)
    assert set(ends(events)) == {"0", "1"}


def test_a_future_of_the_loop_that_waits_is_refused():
    async def main():
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(RegularizerError) as caught:
            compute(lambda data, logprobs: future, zero)
        assert not future.cancelled()
        return str(caught.value.__cause__)

    assert asyncio.run(main()) == (
        "<Future pending> belongs to an event loop that cannot run while custom_loss waits. "
        "Return a coroutine, or a concurrent.futures.Future."
    )


def test_a_future_of_the_loop_that_waits_may_be_done():
    async def main():
        future = asyncio.get_running_loop().create_future()
        future.set_result(3.0)
        return compute(lambda data, logprobs: future).loss_total

    assert asyncio.run(main()) == 3.0


def test_tasks_that_were_started_and_not_awaited_are_ended():
    ended = []

    async def sleep():
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    async def starts(data, logprobs):
        starts.task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        return 1.0

    assert compute(starts).loss_total == 1.0
    assert ended == ["cancelled"]


PRELUDE = """
import asyncio, os, signal, sys, threading, time
from concurrent.futures import Future
import numpy as np
import telemetry
from telemetry.testing import capture
from regularizers import RegularizerSpec, custom_loss

# What runs in a shell's background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

HOUR = 3600
begun = threading.Semaphore(0)
telemetry.attach("begun", ("regularizer", "compute", "start"), lambda *event: begun.release())

def sit(data, logprobs):
    time.sleep(HOUR)

async def patient(data, logprobs):
    await asyncio.sleep(HOUR)

async def stubborn(data, logprobs):
    while True:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            pass

async def interrupts(data, logprobs):
    await asyncio.sleep(0)
    raise KeyboardInterrupt

def press(times=1):
    # Ctrl-C, once both wait; two that are pressed come as two.
    def body():
        for _ in range(2):
            begun.acquire()
        time.sleep(1)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2)
    threading.Thread(target=body, daemon=True).start()

def compute(*functions, **options):
    specs = [RegularizerSpec(f, 1.0, str(i)) for i, f in enumerate(functions)]
    return custom_loss(None, np.ones(2), lambda d, x: 0.0, regularizers=specs, **options)

def interrupted(function):
    with capture() as events:
        try:
            function()
        except KeyboardInterrupt:
            print("interrupted")
    places = {}
    for event, _, metadata in events:
        places.setdefault(metadata["telemetry_span_context"].span_id, []).append(event[-1])
    print(sorted(places.values()))
"""

CTRL_C = {
    "coroutines": "press(); interrupted(lambda: compute(patient, lambda d, x: patient(d, x)))",
    "threads": "press(); interrupted(lambda: compute(sit, sit, parallel=True))",
    "futures": "press(); interrupted(lambda: compute(*[lambda d, x: Future()] * 2))",
    "coroutine and thread": "press(); interrupted(lambda: compute(patient, sit, parallel=True))",
    "awaited in a thread": (
        "press(); interrupted(lambda: compute(sit, lambda d, x: patient(d, x), parallel=True))"
    ),
    "sequence": "press(); interrupted(lambda: compute(lambda d, x: 0.0, sit))",
    "stubborn": "press(); interrupted(lambda: compute(stubborn, patient))",
    "raised by two": "interrupted(lambda: compute(interrupts, interrupts))",
    "pressed twice": "press(2); interrupted(lambda: compute(stubborn, patient))",
    "in a running loop": """
async def main():
    asyncio.get_running_loop().slow_callback_duration = HOUR  # it is waited for, and says so
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as notebooks have it
    press()
    interrupted(lambda: compute(patient, sit, parallel=True))
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "in asyncio.run, which takes the first one for itself": """
async def main():
    asyncio.get_running_loop().slow_callback_duration = HOUR  # as above
    press(2)
    interrupted(lambda: compute(patient, sit, parallel=True))
    await asyncio.sleep(0)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
""",
}
STOPPED = "['start', 'stop']"
FAILED = "['start', 'exception']"
OUTCOMES = {"sequence": f"[{FAILED}, {FAILED}, {STOPPED}]"}


def run_python(code):
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Ctrl-C is another matter on Windows")
@pytest.mark.parametrize("waiting", CTRL_C)
def test_ctrl_c_reaches_the_caller_and_every_span_ends_once(waiting):
    """And nothing is complained of, nor waited for at the end of the program."""
    done = run_python(CTRL_C[waiting])
    expected = OUTCOMES.get(waiting, f"[{FAILED}, {FAILED}, {FAILED}]")
    assert (done.stdout, done.stderr) == (f"interrupted\n{expected}\n", "")
    assert done.returncode == 0


def test_the_program_ends_while_a_thread_that_overran_sleeps_on():
    done = run_python("""
        from regularizers import RegularizerError
        try:
            compute(sit, parallel=True, timeout=0.1)
        except RegularizerError as error:
            print(error)
    """)
    expected = "Regularizer '0' failed: TimeoutError('It took longer than timeout=0.1 s.').\n"
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)


def test_nothing_is_complained_of_in_development_mode():
    done = run_python("""
        from regularizers import RegularizerError
        async def fail(data, logprobs):
            raise KeyError("mask")
        async def fine(data, logprobs):
            return 1.0
        def in_a_future(data, logprobs):
            future = Future()
            threading.Thread(target=future.set_result, args=(1.0,)).start()
            return future
        everything = [fine, patient, stubborn, fail, in_a_future, lambda d, x: fine(d, x)]
        for parallel in (False, True):
            try:
                compute(*everything, parallel=parallel, timeout=2.0)
            except RegularizerError as error:
                print(list(error.failures))
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("['1', '2', '3']\n" * 2, "", 0)
