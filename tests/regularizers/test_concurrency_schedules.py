"""What must hold of the events, whatever becomes of the regularizers, in whatever order."""

import asyncio
import functools
import importlib
import threading
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regularizers import RegularizerError, RegularizerSpec, custom_loss
from telemetry.events import CATALOGUE
from telemetry.testing import capture

TIMEOUT = 0.05
LONG = 30.0
PLACE = "telemetry_span_context"
ALLOWED = {
    spec.name: (
        {field.name for field in spec.measurements},
        {field.name for field in spec.metadata} | {PLACE},
    )
    for spec in CATALOGUE
}


class Term(NamedTuple):
    """What becomes of a regularizer, how it is called, and how soon."""

    outcome: str
    manner: str
    delay: float


OUTCOMES = ("fine", "array", "fails", "stops", "cancelled", "slow", "heedless", "interrupts")
MANNERS = ("plain", "coroutine", "returns a coroutine", "future")
TERMS = st.builds(
    Term, st.sampled_from(OUTCOMES), st.sampled_from(MANNERS), st.sampled_from((0.0, 0.001, 0.003))
)
RAISED = {
    "fails": KeyError,
    "stops": StopIteration,
    "cancelled": asyncio.CancelledError,
    "interrupts": KeyboardInterrupt,
}


def conclude(outcome, logprobs):
    if outcome in RAISED:
        raise RAISED[outcome]
    return logprobs if outcome == "array" else (logprobs * logprobs).sum()


def plain(term, gate, data, logprobs):
    time.sleep(term.delay)
    if term.outcome in ("slow", "heedless"):
        in_a_thread = threading.current_thread() is not threading.main_thread()
        gate.wait(LONG if in_a_thread else 2 * TIMEOUT)
    return conclude(term.outcome, logprobs)


async def coroutine(term, gate, data, logprobs):
    await asyncio.sleep(term.delay)
    if term.outcome in ("slow", "heedless"):
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            if term.outcome == "slow":
                raise
            await asyncio.sleep(0.001)
    return conclude(term.outcome, logprobs)


def future(term, gate, data, logprobs):
    future = Future()
    future.set_running_or_notify_cancel()

    def body():
        try:
            future.set_result(plain(term, gate, data, logprobs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=body).start()
    return future


FUNCTIONS = {
    "plain": plain,
    "coroutine": coroutine,
    "returns a coroutine": lambda *arguments: coroutine(*arguments),  # noqa: PLW0108 -- a plain function
    "future": future,
}


class Framework(NamedTuple):
    """How to make logprobs, and the gradient of the sum of their squares where it is needed."""

    logprobs: object
    grad: object


@functools.cache
def framework(name):
    if name == "torch":
        return Framework(importlib.import_module("torch").ones(2, requires_grad=True), None)
    if name == "jax":
        return Framework(importlib.import_module("jax.numpy").ones(2), None)
    return Framework(np.ones(2), lambda data, logprobs: 2 * logprobs)


def compute(name, terms, gate, *, track, parallel):
    logprobs, grad = framework(name)
    specs = [
        RegularizerSpec(partial(FUNCTIONS[term.manner], term, gate), 0.5, str(i), grad_fn=grad)
        for i, term in enumerate(terms)
    ]
    overruns = any(term.outcome in ("slow", "heedless") for term in terms)
    return custom_loss(
        None,
        logprobs,
        lambda data, logprobs: (logprobs * logprobs).sum(),
        regularizers=specs,
        track_grad_norms=track,
        base_grad_fn=grad,
        parallel=parallel,
        timeout=TIMEOUT if overruns else None,
    )


def wait_for_all_but(before):
    ends = time.monotonic() + LONG
    while not set(threading.enumerate()) <= before:
        assert time.monotonic() < ends
        time.sleep(0.001)


def check(events, terms):
    """Every span that started ended once, in its place, with what the catalogue has of it."""
    starts = Counter(e.metadata[PLACE] for e in events if e.event[-1] == "start")
    ends = Counter(e.metadata[PLACE] for e in events if e.event[-1] != "start")
    assert starts == ends
    assert set(starts.values()) == {1}
    assert len(starts) <= 1 + len(terms)
    outer = events[0].metadata[PLACE]
    assert events[0].event == ("custom_loss", "start")
    assert events[-1].metadata[PLACE] == outer
    assert {place.parent_id for place in starts} <= {None, outer.span_id}
    for event in events:
        measurements, metadata = ALLOWED[event.event]
        assert event.measurements.keys() <= measurements
        assert event.metadata.keys() <= metadata


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@settings(max_examples=60)
@given(terms=st.lists(TERMS, max_size=5), track=st.booleans(), parallel=st.booleans())
def test_every_span_that_starts_ends_once_and_nothing_comes_after(name, terms, track, parallel):
    if name == "jax":  # traces functions, which a thread that is not ours knows nothing of
        terms = [term for term in terms if term.manner != "future"]
    framework(name)  # is imported, and begins what threads it has
    gate, before = threading.Event(), set(threading.enumerate())
    ended = None
    with capture() as events:
        try:
            compute(name, terms, gate, track=track, parallel=parallel)
        except BaseException as error:  # the point is what was emitted
            ended = error
        at_return = list(events)
        gate.set()
        wait_for_all_but(before)
    assert events == at_return
    check(events, terms)
    outcomes = {term.outcome for term in terms}
    assert (ended is None) == (outcomes <= {"fine"})
    assert events[-1].event[-1] == ("stop" if ended is None else "exception")
    assert events[-1].metadata.get("reason") is ended
    if not outcomes & {"interrupts", "cancelled"} and ended is not None:
        assert isinstance(ended, RegularizerError)
        failed = [str(i) for i, term in enumerate(terms) if term.outcome != "fine"]
        # On a busy machine a fine one may take longer than the timeout, too.
        assert [name for name in ended.failures if name in failed] == failed
        assert outcomes & {"slow", "heedless"} or list(ended.failures) == failed
        assert len(at_return) == 2 + 2 * len(terms)
