"""Sinks that take what came together."""

import threading

import numpy as np
import pytest

import handlers
from handlers.each import BatchError, take_each
from handlers.event_queue import BATCH
from handlers.records import TimedEvent

STEP = ("training", "step")
FAILURE = ("telemetry", "handler", "failure")


class Batches:
    """A sink that keeps its batches, and waits at its gate while that is shut."""

    delivery = "background"

    def __init__(self, site):
        self.batches = []
        self.single = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.errors = []  # raised, one for each call; None for none
        self.closed = threading.Event()

    def __call__(self, event, measurements, metadata, config):
        self.single.append((event, measurements, metadata))

    def deliver_many(self, batch):
        self.entered.set()
        assert self.gate.wait(300)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.batches.append(batch)

    def close(self):
        self.closed.set()

    @property
    def steps(self):
        return [entry.metadata["step"] for batch in self.batches for entry in batch]


@pytest.fixture
def attach(bus, gated, monkeypatch):
    monkeypatch.setattr("gated_sinks.create", Batches)

    def attach(**options):
        return handlers.attach("gated", events=STEP, registry=bus, **options)

    return attach


@pytest.fixture
def failures(bus):
    found = []
    bus.attach("failures", FAILURE, lambda e, m, metadata, c: found.append(metadata["reason"]))
    return found


@pytest.fixture
def hold(step):
    """Let the worker hang in the sink with event 0 alone, and have events 1 to `last` wait."""

    def hold(attachment, last):
        attachment.handler.gate.clear()
        step(0)
        assert attachment.handler.entered.wait(60)
        for number in range(1, last + 1):
            step(number)

    return hold


def test_what_came_together_is_delivered_together_in_order(attach, hold):
    attachment = attach()
    hold(attachment, 2 * BATCH)
    attachment.handler.gate.set()
    assert attachment.flush()
    assert [len(batch) for batch in attachment.handler.batches] == [1, BATCH, BATCH]
    assert attachment.handler.steps == list(range(2 * BATCH + 1))
    assert attachment.handler.single == []


def test_entries_are_timed_events_with_numbers_where_arrays_were(bus, attach, monkeypatch):
    monkeypatch.setattr("handlers.background.time.time_ns", lambda: 1_700_000_000_000_000_000)
    attachment = attach()
    measurements = {"loss": np.float32(0.5), "norms": np.array([1.0, 2.0])}
    bus.execute(STEP, measurements, {"step": np.int64(3)})
    assert attachment.flush()
    ((entry,),) = attachment.handler.batches
    assert entry == (
        1_700_000_000_000_000_000,
        STEP,
        {"loss": 0.5, "norms": [1.0, 2.0]},
        {"step": 3},
    )
    assert type(entry.measurements["loss"]) is float
    assert type(entry.metadata["step"]) is int


def test_numbers_are_where_arrays_were_whatever_comes_before_and_after_them(bus, attach, hold):
    attachment = attach()
    hold(attachment, 0)
    given = [{"loss": 1.0}, {"loss": np.float32(0.5)}, {"loss": 2.0}, {"norms": np.arange(2)}]
    for step, measurements in enumerate(given):
        bus.execute(STEP, measurements, {"step": step or np.int64(0)})
    attachment.handler.gate.set()
    assert attachment.flush()
    found = attachment.handler.batches[-1]
    assert [entry.measurements for entry in found] == [
        {"loss": 1.0}, {"loss": 0.5}, {"loss": 2.0}, {"norms": [0, 1]}
    ]  # fmt: skip
    assert type(found[1].measurements["loss"]) is float
    assert [type(entry.metadata["step"]) for entry in found] == [int] * 4


def test_a_flush_waits_for_the_whole_batch(attach, step, hold):
    attachment = attach()
    hold(attachment, 3)
    assert attachment.flush(0.01) is False
    attachment.handler.gate.set()
    assert attachment.flush()
    assert attachment.handler.steps == [0, 1, 2, 3]


def test_a_batch_that_fails_detaches_and_counts_all_but_the_event_it_names(
    attach, hold, failures, drops
):
    attachment = attach()
    hold(attachment, BATCH + 5)
    attachment.handler.errors = [None, OSError("gone")]
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert attachment.handler.steps == [0]
    (reason,) = failures
    assert str(reason) == "gone"
    assert not attachment.active
    # Event 1 is in the failure; BATCH - 1 came with it, and 5 behind them.
    assert drops == [(BATCH - 1 + 5, {"handler_id": "gated", "policy": "failed"})]


def test_a_kept_sink_loses_the_batch_that_failed_and_no_more(attach, hold, failures, drops):
    attachment = attach(on_failure="keep")
    hold(attachment, BATCH + 5)
    attachment.handler.errors = [None, OSError("gone")]
    attachment.handler.gate.set()
    assert attachment.flush()
    assert attachment.active
    assert attachment.handler.steps == [0, *range(BATCH + 1, BATCH + 6)]
    assert len(failures) == 1
    assert drops == [(BATCH - 1, {"handler_id": "gated", "policy": "failed"})]


def test_what_would_end_a_thread_fails_the_batch(attach, hold, failures):
    attachment = attach()
    hold(attachment, 0)
    attachment.handler.errors = [SystemExit(3)]
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert [str(reason) for reason in failures] == ["sink raised SystemExit(3)"]


def test_a_batch_that_hangs_at_the_close_is_counted_once(attach, hold, drops):
    attachment = attach(flush_timeout=0.0)
    hold(attachment, BATCH + 5)
    attachment.detach()
    attachment.handler.gate.set()
    assert attachment.handler.closed.wait(60)
    attachment._worker._thread.join(60)
    assert sum(count for count, _ in drops) == 1 + BATCH + 5
    assert attachment.handler.steps == [0]  # it was under way, and nobody could call it back


def test_an_event_that_the_emitter_delivers_comes_by_itself(attach):
    attachment = attach()
    worker = attachment._worker
    attachment.detach()
    worker(STEP, {"loss": 1.0}, {"step": 7}, None)
    assert attachment.handler.single == [(STEP, {"loss": 1.0}, {"step": 7})]
    assert attachment.handler.batches == []


def refuse_odd(sink):
    """Have a sink take the even steps of a batch, and fail at the others."""

    def take(entry):
        if entry.metadata["step"] % 2:
            raise OSError(f"odd: {entry.metadata['step']}")
        sink.batches.append([entry])

    def deliver_many(batch):
        sink.entered.set()
        assert sink.gate.wait(300)
        error = take_each(batch, take)
        if error is not None:
            raise error

    sink.deliver_many = deliver_many


@pytest.mark.parametrize("policy", ["keep", "detach"])
def test_what_was_taken_of_a_batch_with_a_failure_is_not_lost(
    bus, gated, monkeypatch, step, failures, drops, policy
):
    monkeypatch.setattr("gated_sinks.create", Batches)
    attachment = handlers.attach(
        "gated", events=[STEP, ("my", "note")], registry=bus, on_failure=policy
    )
    sink = attachment.handler
    refuse_odd(sink)
    names = []
    bus.attach("names", FAILURE, lambda e, m, metadata, c: names.append(metadata["event_name"]))
    sink.gate.clear()
    step(0)
    assert sink.entered.wait(60)
    step(2)
    bus.execute(("my", "note"), {}, {"step": 3})
    for number in (4, 5, 6):
        step(number)
    sink.gate.set()
    bus.detach("gated", missing_ok=True)
    attachment._worker._thread.join(60)
    assert sink.steps == [0, 2, 4, 6]
    assert names == [("my", "note")]
    assert [str(reason) for reason in failures] == ["odd: 3"]
    assert drops == [(1, {"handler_id": "gated", "policy": "failed"})]  # the step 5


def test_of_a_batch_of_one_its_own_error_is_told():
    def take(entry):
        raise KeyError(entry.time_ns)

    one, two = (TimedEvent(number, STEP, {}, {}) for number in (1, 2))
    assert take_each([], take) is None
    assert repr(take_each([one], take)) == "KeyError(1)"
    error = take_each([one, two], take)
    assert isinstance(error, BatchError)
    assert (repr(error.error), error.failed) == ("KeyError(1)", [one, two])
