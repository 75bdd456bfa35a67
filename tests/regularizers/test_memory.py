"""What a call has used is freed when it is let go, without waiting for the garbage collector."""

import asyncio
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss

POOL = ThreadPoolExecutor(1)


def plain(data, logprobs):
    return logprobs.abs().sum()


async def waits(data, logprobs):
    await asyncio.sleep(0.001)
    return logprobs.abs().sum()


def submits(data, logprobs):
    return POOL.submit(plain, data, logprobs)


def fails(data, logprobs):
    raise ValueError


async def waits_and_fails(data, logprobs):
    await asyncio.sleep(0.001)
    raise ValueError


def submits_and_fails(data, logprobs):
    return POOL.submit(fails, data, logprobs)


def fails_late(data, logprobs):
    time.sleep(0.01)
    raise ValueError


def slow(data, logprobs):
    time.sleep(0.02)
    return logprobs.sum()


async def hangs(data, logprobs):
    await asyncio.sleep(60)


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def after(function, **options):
    """What is left of the logprobs of a call, and what it raised."""
    logprobs = torch.ones(3, requires_grad=True) * 1.0
    left = weakref.ref(logprobs)
    specs = [RegularizerSpec(function, 0.1, "a")]
    raised = None
    try:
        custom_loss(None, logprobs, plain, regularizers=specs, **options)
    except RegularizerError as error:
        raised = type(error.__cause__)
    return left, raised


def is_freed(left):
    """What runs in another thread may have a moment to come to its own end."""
    until = time.monotonic() + 60
    while left() is not None and time.monotonic() < until:
        time.sleep(0.001)
    return left() is None


@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize(
    ("function", "options"),
    [
        (plain, {}),
        (waits, {}),
        (waits, {"timeout": 9.0}),
        (plain, {"parallel": True}),
        (slow, {"parallel": True}),
        (submits, {}),
        (submits, {"parallel": True}),
    ],
)
@pytest.mark.usefixtures("no_collector")
def test_logprobs_are_freed_after_a_call(function, options, track):
    for _ in range(5):
        left, raised = after(function, **options, track_grad_norms=track)
        assert raised is None
        assert is_freed(left)


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        (fails, {}, ValueError),
        (waits_and_fails, {}, ValueError),
        (fails, {"parallel": True}, ValueError),
        (fails_late, {"parallel": True}, ValueError),
        (submits_and_fails, {}, ValueError),
        (hangs, {"timeout": 0.01}, TimeoutError),
        (slow, {"timeout": 0.01}, TimeoutError),
        (slow, {"timeout": 0.01, "parallel": True}, TimeoutError),
    ],
)
@pytest.mark.usefixtures("no_collector")
def test_logprobs_are_freed_after_a_call_that_has_failed(function, options, expected):
    for _ in range(5):
        left, raised = after(function, **options)
        assert raised is expected
        assert is_freed(left)
