"""One timeout for each regularizer, and what becomes of what overran it."""

import asyncio
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

import telemetry
from regularizers import RegularizerError, RegularizerSpec, custom_loss, own_loop
from regularizers.own_loop import GRACE
from telemetry.testing import capture

SHORT = 1.0
"""Seconds that what takes no time does not take, on a busy machine either."""
LONG = 60.0
"""Seconds that no test would wait for."""


def one(data, logprobs):
    return 1.0


async def one_later(data, logprobs):
    await asyncio.sleep(0)
    return 1.0


async def never(data, logprobs):
    await asyncio.get_running_loop().create_future()


def compute(function, *others, timeout=SHORT, **options):
    functions = {"slow": function, **{str(i): other for i, other in enumerate(others)}}
    specs = [RegularizerSpec(function, 1.0, name) for name, function in functions.items()]
    return custom_loss(None, np.ones(2), one, regularizers=specs, timeout=timeout, **options)


def failure_of(*functions, **options):
    """The cause of the error that the slow one, and it alone, is responsible for."""
    with pytest.raises(RegularizerError) as caught:
        compute(*functions, **options)
    assert list(caught.value.failures) == ["slow"]
    return caught.value.__cause__


@pytest.fixture
def gate():
    """Opens when the test is over, and then everybody who waited for it has to be gone."""
    gate = threading.Event()
    before = set(threading.enumerate())
    yield gate
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def ended(gate):
    """Wait for the end of every thread that there was not before, but those of the pool."""
    before = set(threading.enumerate())

    def ended():
        for thread in set(threading.enumerate()) - before:
            if not thread.name.startswith("ThreadPoolExecutor"):
                thread.join(LONG)
                assert not thread.is_alive()

    return ended


@pytest.fixture
def pool():
    """Two threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def ways(gate, pool):
    def waits(data, logprobs):
        gate.wait(LONG)
        return 1.0

    async def with_a_thread(data, logprobs):
        await asyncio.to_thread(gate.wait, LONG)

    def submits(data, logprobs):
        return pool.submit(waits, data, logprobs)

    return {
        "thread": (waits, {"parallel": True}),
        "coroutine": (never, {}),
        "returned coroutine": (lambda d, x: never(d, x), {}),  # noqa: PLW0108 -- a plain function
        "returned coroutine in a thread": (lambda d, x: never(d, x), {"parallel": True}),  # noqa: PLW0108 -- as above
        "future": (submits, {}),
        "future in a thread": (submits, {"parallel": True}),
        "future that nobody fulfils": (lambda d, x: Future(), {}),
        "thread of a coroutine": (with_a_thread, {}),
    }


@pytest.mark.parametrize("way", ways(None, None))
def test_what_takes_too_long_fails_in_time_and_the_others_finish(
    way, gate, pool, ended, monkeypatch
):
    monkeypatch.setattr(own_loop, "GRACE", 2 * LONG)  # nothing here needs it
    function, options = ways(gate, pool)[way]
    started = time.monotonic()
    with capture() as events:
        error = failure_of(function, one, one_later, **options)
        assert SHORT <= time.monotonic() - started < LONG
        count = len(events)
        gate.set()
        ended()
    assert len(events) == count
    assert type(error) is TimeoutError
    assert str(error) == "It took longer than timeout=1.0 s."
    ends = {e.metadata["regularizer_name"]: e for e in events if e.event[1] == "compute"}
    assert {name: e.event[-1] for name, e in ends.items()} == {
        "slow": "exception",
        "0": "stop",
        "1": "stop",
    }
    assert ends["slow"].metadata["reason"] is error
    assert ends["slow"].metadata["kind"] == "error"
    assert ends["slow"].measurements["duration"] >= SHORT * 1e9


def test_what_ran_in_the_callers_thread_is_found_on_return():
    def slow(data, logprobs):
        time.sleep(SHORT + 0.1)
        return 1.0

    error = failure_of(slow, one)
    assert type(error) is TimeoutError
    took, longer = re.fullmatch(r"It took ([\d.]+) s, (.*)", str(error)).groups()
    assert SHORT + 0.1 <= float(took) < LONG
    assert longer == (
        "longer than timeout=1.0 s. In the caller's thread it could not be stopped; "
        "with parallel=True it is given up in time."
    )


def test_what_a_call_took_is_missing_for_what_it_returned():
    """0.2 of 0.3 s are gone, so that the 0.2 s that follow are too many."""

    def half_and_half(data, logprobs):
        time.sleep(0.2)
        return asyncio.sleep(0.2, 1.0)

    for parallel in (False, True):
        assert type(failure_of(half_and_half, timeout=0.3, parallel=parallel)) is TimeoutError


def test_what_is_returned_when_the_time_is_over_is_not_begun():
    begun = []

    async def begin(data, logprobs):
        begun.append(True)

    def slow(data, logprobs):
        time.sleep(0.05)
        return begin(data, logprobs)

    assert type(failure_of(slow, timeout=0.01)) is TimeoutError
    assert begun == []


def test_time_that_others_take_does_not_count():
    def slow(data, logprobs):
        time.sleep(2.0)
        return 1.0

    async def wakes(data, logprobs):
        await asyncio.sleep(0.01)
        return 1.0

    specs = [
        RegularizerSpec(function, 1.0, str(i))
        for i, function in enumerate([wakes, lambda d, x: wakes(d, x), slow, slow])  # noqa: PLW0108 -- a plain function
    ]
    assert custom_loss(None, np.ones(2), one, regularizers=specs, timeout=3.5).loss_total == 5.0


def test_a_coroutine_that_took_too_long_is_cancelled_and_may_clean_up():
    done = []

    async def tidy(data, logprobs):
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0.01)
            done.append("tidied up")

    assert type(failure_of(tidy)) is TimeoutError
    assert done == ["tidied up"]


def test_a_coroutine_that_took_too_long_is_cancelled_at_once():
    """It has half a second left when it is begun, and the other one waits for it to be over."""
    over = asyncio.Event()

    async def note():
        try:
            await asyncio.sleep(LONG)
        finally:
            over.set()

    async def other(data, logprobs):
        await over.wait()
        return 1.0

    def slow(data, logprobs):
        time.sleep(1.5)
        return note()

    assert type(failure_of(slow, lambda d, x: other(d, x), timeout=2.0)) is TimeoutError  # noqa: PLW0108 -- a plain function
    assert over.is_set()


def test_a_coroutine_that_does_not_heed_its_cancellation_is_left_behind(caplog):
    stop = []

    async def stubborn(data, logprobs):
        while not stop:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                telemetry.execute(("stubborn",), {"cancelled": 1})

    started = time.monotonic()
    with capture(("regularizer", "**")) as events:
        error = failure_of(stubborn, one_later)
    assert SHORT + GRACE <= time.monotonic() - started < LONG
    assert type(error) is TimeoutError
    assert [e.event[-1] for e in events] == ["start", "start", "stop", "exception"]
    assert caplog.records == []


def test_what_comes_while_others_still_clean_up_is_thrown_away_in_silence(caplog):
    late = threading.Event()

    async def tidy(data, logprobs):
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.to_thread(late.wait, LONG)
            await asyncio.sleep(0.1)

    def slow(data, logprobs):
        time.sleep(2 * SHORT)
        late.set()
        return 1.0

    with pytest.raises(RegularizerError) as caught:
        compute(slow, tidy, parallel=True)
    assert late.is_set()
    assert {type(error) for error in caught.value.failures.values()} == {TimeoutError}
    assert caplog.records == []


def test_a_future_that_took_too_long_is_cancelled():
    future = Future()
    assert type(failure_of(lambda data, logprobs: future)) is TimeoutError
    assert future.cancelled()


def test_an_asynchronous_generator_is_closed_before_the_return():
    kept, closed = [], []

    async def endless():
        try:
            while True:
                yield 1.0
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def take_one(data, logprobs):
        kept.append(endless())
        return await anext(kept[0])

    assert compute(take_one, timeout=LONG).loss_total == 2.0
    assert closed == [True]


def test_an_asynchronous_generator_that_hangs_at_its_end_does_not_delay_the_return():
    async def endless():
        try:
            while True:
                yield 1.0
        finally:
            await asyncio.sleep(LONG)

    kept = []

    async def take_one(data, logprobs):
        kept.append(endless())
        return await anext(kept[0])

    started = time.monotonic()
    assert compute(take_one, timeout=LONG).loss_total == 2.0
    assert time.monotonic() - started < LONG


def test_an_overrun_thread_ends_its_own_spans_and_changes_nothing(gate, ended):
    finished = threading.Event()

    def slow(data, logprobs):
        with telemetry.span(("mine",)):
            gate.wait(LONG)
        finished.set()
        return 1.0

    with capture() as events:
        error = failure_of(slow, one, parallel=True)
        before = [e.event for e in events]
        gate.set()
        assert finished.wait(LONG)
        ended()
    assert type(error) is TimeoutError
    assert before[-1] == ("custom_loss", "exception")
    assert [e.event for e in events[len(before) :]] == [("mine", "stop")]


def test_a_timeout_of_the_function_itself_is_its_own():
    mine = TimeoutError("the server did not answer")

    async def asks(data, logprobs):
        raise mine

    assert failure_of(asks, timeout=LONG) is mine


@pytest.mark.parametrize(
    "timeout",
    [LONG, 30, Fraction(30), np.float32(30), float("inf"), pytest.param(10**400, id="huge"), None],
)
@pytest.mark.parametrize("function", [one, one_later, lambda d, x: one_later(d, x)])  # noqa: PLW0108 -- a plain function
@pytest.mark.parametrize("parallel", [False, True])
def test_within_the_timeout_nothing_is_different(function, timeout, parallel):
    assert compute(function, timeout=timeout, parallel=parallel).loss_total == 2.0


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, float("nan"), float("-inf")])
def test_a_timeout_that_is_not_above_zero_is_refused(timeout):
    with capture() as events, pytest.raises(ValueError, match="timeout") as caught:
        compute(one, timeout=timeout)
    assert str(caught.value) == (
        f"custom_loss got timeout={timeout!r}. "
        "It takes seconds above 0, such as 30.0, or None for no limit."
    )
    assert events == []


@pytest.mark.parametrize("timeout", ["30", True, False, [1.0], 1j])
def test_a_timeout_that_is_no_number_is_refused(timeout):
    with capture() as events, pytest.raises(TypeError) as caught:
        compute(one, timeout=timeout)
    assert str(caught.value) == (
        f"custom_loss got timeout={timeout!r} ({type(timeout).__name__}). "
        "It takes seconds, such as 30.0, or None for no limit."
    )
    assert events == []
