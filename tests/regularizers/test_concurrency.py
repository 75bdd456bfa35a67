"""Several regularizers at once: how long it takes, in which order, and what they are told."""

import asyncio
import contextvars
import importlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch

import telemetry
from regularizers import RegularizerError, RegularizerSpec, custom_loss
from telemetry.testing import capture

WAIT = 0.3
LONG = 60.0  # seconds that no test would wait for

PLACE = "telemetry_span_context"
POOL = ThreadPoolExecutor(3)


def zero(data, logprobs):
    return 0.0


def sleeping(data, logprobs):
    time.sleep(WAIT)
    return 1.0


async def awaiting(data, logprobs):
    await asyncio.sleep(WAIT)
    return 1.0


def submitting(data, logprobs):
    return POOL.submit(sleeping, data, logprobs)


def returning_a_coroutine(data, logprobs):
    return awaiting(data, logprobs)


class Awaiting:
    async def __call__(self, data, logprobs):
        return await awaiting(data, logprobs)


class Awaitable:
    def __await__(self):
        return awaiting(None, None).__await__()


def specs(*functions, weight=1.0):
    return [RegularizerSpec(function, weight, str(i)) for i, function in enumerate(functions)]


def compute(*functions, **options):
    return custom_loss(None, np.ones(2), zero, regularizers=specs(*functions), **options)


class Meeting:
    """Makes functions of which each waits until all three have been called."""

    def __init__(self):
        self.called, self.until = 0, time.monotonic() + LONG

    def is_complete(self):
        assert time.monotonic() < self.until, "they do not wait together"
        return self.called == 3

    def sleeping(self, data, logprobs):
        self.called += 1
        while not self.is_complete():
            time.sleep(0.001)
        return 1.0

    async def awaiting(self, data, logprobs):
        self.called += 1
        while not self.is_complete():  # noqa: ASYNC110 -- an event of this loop knows no threads
            await asyncio.sleep(0.001)
        return 1.0

    def submitting(self, data, logprobs):
        return POOL.submit(self.sleeping, data, logprobs)

    def returning_a_coroutine(self, data, logprobs):
        return self.awaiting(data, logprobs)


async def in_a_task(function):
    return function()


def inside_a_running_loop(function):
    return asyncio.run(in_a_task(function))


WAYS = {
    "threads": (["sleeping"] * 3, {"parallel": True}),
    "coroutines": (["awaiting"] * 3, {}),
    "coroutines beside threads": (["awaiting", "sleeping", "awaiting"], {"parallel": True}),
    "futures": (["submitting"] * 3, {}),
    "futures from threads": (["submitting"] * 3, {"parallel": True}),
    "plain functions that return coroutines": (["returning_a_coroutine"] * 3, {}),
    "the same in threads": (["returning_a_coroutine"] * 3, {"parallel": True}),
}


@pytest.mark.parametrize("run", [lambda f: f(), inside_a_running_loop], ids=["plain", "in a loop"])
@pytest.mark.parametrize("way", WAYS)
def test_three_that_wait_do_so_together(way, run):
    meeting, (names, options) = Meeting(), WAYS[way]
    functions = [getattr(meeting, name) for name in names]
    assert run(lambda: compute(*functions, **options).loss_total) == 3.0


@pytest.mark.parametrize(("name", "parallel"), [("torch", False), ("jax", True)])
def test_they_do_so_too_where_gradients_are_taken(name, parallel):
    """jax calls a function within its own, which has to be in a thread to wait beside others."""
    if name == "torch":
        x = torch.ones(2, requires_grad=True)
    else:
        x = importlib.import_module("jax.numpy").ones(2)

    meeting = Meeting()

    async def waits(data, logprobs):
        await meeting.awaiting(data, logprobs)
        return 2 * logprobs.sum()

    output = custom_loss(
        None,
        x,
        lambda data, logprobs: logprobs.sum(),
        regularizers=specs(waits, waits, waits, weight=0.5),
        track_grad_norms=True,
        parallel=parallel,
    )
    norms = [one.grad_norm for one in output.regularizers.values()]
    assert norms == pytest.approx([8**0.5] * 3)
    assert output.total_grad_norm == pytest.approx(32**0.5)
    assert all(one.asynchronous for one in output.regularizers.values())


def test_without_parallel_synchronous_ones_take_turns_in_the_callers_thread():
    where = []

    def note(data, logprobs):
        where.append(threading.current_thread())
        return 1.0

    compute(note, note)
    assert where == [threading.current_thread()] * 2


def test_in_parallel_coroutines_stay_in_the_callers_thread():
    async def note(data, logprobs):
        return float(threading.current_thread() is threading.main_thread())

    assert compute(note, note, parallel=True).loss_total == 2.0


def test_in_parallel_each_synchronous_one_has_a_thread_of_its_own():
    together = threading.Barrier(3, timeout=LONG)

    def meet(data, logprobs):
        together.wait()
        return float(threading.current_thread() is not threading.main_thread())

    assert compute(meet, meet, meet, parallel=True).loss_total == 3.0


@pytest.mark.parametrize(
    ("function", "asynchronous"),
    [
        (zero, False),
        (awaiting, True),
        (partial(awaiting), True),
        (partial(partial(awaiting)), True),
        (Awaiting(), True),
        (partial(Awaiting()), True),
        (submitting, "only at the end"),
        (returning_a_coroutine, "only at the end"),
        (lambda data, logprobs: Awaitable(), "only at the end"),
    ],
    ids=[
        "plain",
        "coroutine",
        "partial",
        "nested",
        "object",
        "of an object",
        "future",
        "returned",
        "awaitable",
    ],
)
@pytest.mark.parametrize("parallel", [False, True])
def test_the_events_and_the_output_say_whether_it_was_awaited(
    function, asynchronous, parallel, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "WAIT", 0.001)
    with capture(("regularizer", "**")) as events:
        output = compute(function, parallel=parallel)
    assert [e.metadata["async"] for e in events] == [asynchronous is True, bool(asynchronous)]
    assert output.regularizers["0"].asynchronous is bool(asynchronous)


def test_the_output_is_in_the_order_given_whatever_ends_first():
    ended = []

    def after(others, data, logprobs):
        until = time.monotonic() + LONG
        while len(ended) < others and time.monotonic() < until:
            time.sleep(0.001)
        ended.append(others)
        return float(others)

    output = compute(*[partial(after, others) for others in (2, 1, 0)], parallel=True)
    assert ended == [0, 1, 2]
    assert list(output.regularizers) == ["0", "1", "2"]
    assert [one.value for one in output.regularizers.values()] == [2.0, 1.0, 0.0]


FACTORS = (1e8, -1e8, 1.0)
"""In float32 a sum of these is 0 or 1, depending on its order."""


def scaled(i, data, logprobs):
    return (logprobs * FACTORS[i]).sum()


def in_order(order):
    """The same, of which each waits until the one before it in this order has ended."""
    ended = [threading.Event() for _ in FACTORS]

    def in_turn(i, data, logprobs):
        before = order.index(i)
        if before:
            assert ended[order[before - 1]].wait(LONG)
        value = scaled(i, data, logprobs)
        ended[i].set()
        return value

    return in_turn


def totals(function, **options):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    terms = [RegularizerSpec(partial(function, i), 1.0, str(i)) for i in range(len(FACTORS))]
    output = custom_loss(
        None, x, lambda d, x: x.sum(), regularizers=terms, track_grad_norms=True, **options
    )
    return output.to_dict(), torch.autograd.grad(output.loss, x)[0].tolist()


def test_the_total_is_bit_for_bit_that_of_the_sequence_whatever_ends_first():
    """Except for the caller's backward(), in which torch chooses the order: always the same."""
    expected, _ = totals(scaled)
    found = [totals(in_order(order), parallel=True) for order in permutations(range(3))]
    assert [metrics for metrics, _ in found] == [expected] * 6
    assert [gradient for _, gradient in found] == [found[0][1]] * 6


def test_an_outer_task_and_its_siblings_go_on_afterwards():
    async def tick(ticks):
        for number in range(3):
            await asyncio.sleep(0.001)
            ticks.append(number)

    async def main():
        ticks = []
        sibling = asyncio.create_task(tick(ticks))
        await asyncio.sleep(0)
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        async with asyncio.timeout(LONG):
            compute(awaiting, parallel=True)
            assert ticks == []  # this loop stands still meanwhile
            assert asyncio.current_task() is task
            assert asyncio.get_running_loop() is loop
            await asyncio.wait_for(sibling, LONG)
        return ticks

    assert asyncio.run(main()) == [0, 1, 2]


def test_the_outer_loop_is_back_after_a_failure_too():
    async def fail(data, logprobs):
        raise KeyboardInterrupt

    async def main():
        task = asyncio.current_task()
        with pytest.raises(KeyboardInterrupt):
            compute(fail)
        assert asyncio.current_task() is task
        await asyncio.sleep(0)

    asyncio.run(main())


def test_it_works_in_a_callback_of_a_loop_which_is_no_task():
    async def main():
        result = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(
            lambda: result.set_result(compute(returning_a_coroutine).loss_total)
        )
        return await result

    assert asyncio.run(main()) == 1.0


def test_a_loss_may_be_computed_within_an_asynchronous_regularizer():
    async def nested(data, logprobs):
        await asyncio.sleep(0)
        inner = compute(awaiting, sleeping, parallel=True)
        await asyncio.sleep(0)
        return inner.loss_total

    assert compute(nested, zero).loss_total == 2.0


SEEN = contextvars.ContextVar("seen", default="default")


def look(data, logprobs):
    telemetry.execute(("look", "at"), {"seen": SEEN.get() == "set by the caller"})
    SEEN.set("set by a regularizer")
    with telemetry.span(("inner",)):
        return 1.0


async def look_later(data, logprobs):
    await asyncio.sleep(0)
    return look(data, logprobs)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("function", [look, look_later, lambda d, x: look_later(d, x)])  # noqa: PLW0108 -- a plain function
def test_contextvars_are_carried_in_and_do_not_leak_out(function, parallel):
    SEEN.set("set by the caller")
    with capture() as events, telemetry.context(step=7):
        compute(function, function, parallel=parallel)
    assert SEEN.get() == "set by the caller"
    assert {e.metadata["step"] for e in events} == {7}
    looks = [e for e in events if e.event == ("look", "at")]
    assert [e.measurements["seen"] for e in looks] == [True, True]
    spans = {e.metadata[PLACE].span_id: e for e in events if e.event[-1] == "start"}
    inner = [e.metadata[PLACE] for e in spans.values() if e.event[0] == "inner"]
    parents = [spans[place.parent_id] for place in inner]
    assert {e.metadata["regularizer_name"] for e in parents} == {"0", "1"}
    (outer,) = (e.metadata[PLACE] for e in spans.values() if e.event[0] == "custom_loss")
    assert {e.metadata[PLACE].parent_id for e in parents} == {outer.span_id}


def test_synchronous_ones_are_done_before_an_asynchronous_ones_clock_starts():
    with capture(("regularizer", "compute", "stop")) as events:
        compute(lambda d, x: asyncio.sleep(0, 1.0), awaiting, sleeping)
    ended = {e.metadata["regularizer_name"]: e.measurements["monotonic_time"] for e in events}
    durations = {e.metadata["regularizer_name"]: e.measurements["duration"] for e in events}
    assert list(ended) == ["2", "0", "1"]
    assert ended["1"] - durations["1"] >= ended["2"]
    assert durations["0"] > WAIT * 1e9  # was called before it was known


def test_of_one_coroutine_that_two_regularizers_return_the_second_fails():
    async def waits():
        await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        return 1.0

    coroutine = waits()
    with pytest.raises(RegularizerError) as caught:
        compute(lambda data, logprobs: coroutine, lambda data, logprobs: coroutine, timeout=30.0)
    assert list(caught.value.failures) == ["1"]
    assert "being awaited already" in str(caught.value)


PLAIN = """
import sys
import numpy as np
from regularizers import RegularizerSpec, custom_loss, penalties
before = "asyncio" in sys.modules
x = np.ones(2)
specs = [RegularizerSpec(penalties.l1, 1.0, "a"), RegularizerSpec(penalties.l2, 1.0, "b")]
assert custom_loss(None, x, penalties.l1, regularizers=specs, timeout=10.0).loss_total == 6.0
assert not before and "asyncio" not in sys.modules
"""


def test_a_synchronous_sequence_imports_no_asyncio():
    subprocess.run([sys.executable, "-c", PLAIN], check=True, timeout=300)
