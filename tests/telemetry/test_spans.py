import asyncio
import threading
import time
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

import telemetry
from telemetry import Registry, SpanContext
from telemetry.spans import Span
from telemetry.testing import capture

START, STOP, EXCEPTION = (("s", last) for last in ("start", "stop", "exception"))
KEY = "telemetry_span_context"


def fail_inside(block, error, *first):
    """Leave a span by an error, after some calls with it."""
    with block as span:
        for call in first:
            call(span)
        raise error


def ends(events):
    return [e.event[-1] for e in events if e.event[-1] in ("stop", "exception")]


def test_start_measures_both_clocks_and_stop_the_duration(bus, heard):
    before = time.monotonic_ns(), time.time_ns()
    with bus.span(("s",)):
        between = time.monotonic_ns(), time.time_ns()
    after = time.monotonic_ns()
    start, stop = heard
    assert (start.event, stop.event) == (START, STOP)
    assert start.measurements.keys() == {"monotonic_time", "system_time"}
    assert before[0] <= start.measurements["monotonic_time"] <= between[0]
    assert before[1] <= start.measurements["system_time"] <= between[1]
    assert stop.measurements.keys() == {"monotonic_time", "duration"}
    assert between[0] <= stop.measurements["monotonic_time"] <= after
    values = [*start.measurements.values(), *stop.measurements.values()]
    assert all(type(value) is int for value in values)


@pytest.mark.parametrize("failing", [False, True])
def test_start_time_and_duration_add_up_to_the_end_time(bus, heard, failing):
    span = bus.start_span(("s",))
    span.exception(ValueError()) if failing else span.stop()
    start, end = (e.measurements for e in heard)
    assert start["monotonic_time"] + end["duration"] == end["monotonic_time"]


def test_what_was_measured_is_on_the_stop_event_and_cannot_override_the_times(bus, heard):
    with bus.span(("s",)) as span:
        span.measure(loss_total=2.8, duration=-1, monotonic_time=-1)
        span.measure({"loss_total": 3.0, "not an identifier": 1}, extra=2)
    measured = heard[-1].measurements
    assert measured["duration"] >= 0
    assert measured["monotonic_time"] > 0
    assert measured["loss_total"] == 3.0
    assert (measured["not an identifier"], measured["extra"]) == (1, 2)


def test_stop_inherits_the_start_metadata_and_annotations_win(bus, heard):
    with bus.span(("s",), {"model_id": "m", "phase": "train"}) as span:
        span.annotate(phase="eval", regularizer_count=2)
        span.annotate({"a key": 1}, regularizer_count=3)
    start, stop = heard
    context = start.metadata[KEY]
    assert start.metadata == {KEY: context, "model_id": "m", "phase": "train"}
    assert stop.metadata == {
        KEY: context,
        "model_id": "m",
        "phase": "eval",
        "regularizer_count": 3,
        "a key": 1,
    }


def test_keywords_may_have_any_name(bus, heard):
    with bus.span(("s",)) as span:
        span.measure(self=1, measurements=2)
        span.annotate(self=3, metadata=4)
    assert heard[-1].measurements.items() >= {"self": 1, "measurements": 2}.items()
    assert heard[-1].metadata.items() >= {"self": 3, "metadata": 4}.items()


def test_an_exception_goes_on_unchanged_and_is_described(bus, heard):
    error = ValueError("bad loss")
    with pytest.raises(ValueError, match="bad loss") as caught:
        fail_inside(
            bus.span(("s",), {"m": 1}),
            error,
            lambda span: span.measure(loss=2.5),
            lambda span: span.annotate(step=7),
        )
    assert caught.value is error
    start, end = heard
    assert end.event == EXCEPTION
    assert end.measurements.keys() == {"duration", "monotonic_time", "loss"}
    assert end.measurements["loss"] == 2.5
    stacktrace = end.metadata.pop("stacktrace")
    assert end.metadata == {
        KEY: start.metadata[KEY],
        "m": 1,
        "step": 7,
        "kind": "error",
        "reason": error,
    }
    assert isinstance(stacktrace, list)
    assert all(type(frame) is traceback.FrameSummary for frame in stacktrace)
    assert [frame.name for frame in stacktrace] == ["fail_inside"]
    assert stacktrace[-1].line == "raise error"


def test_kind_reason_and_stacktrace_cannot_be_annotated_over(bus, heard):
    span = bus.span(("s",), {"kind": 1, "reason": 2})
    with pytest.raises(ValueError, match="x"):
        fail_inside(span, ValueError("x"), lambda span: span.annotate(kind=3, stacktrace=4))
    assert heard[0].metadata["kind"] == 1
    assert heard[1].metadata["kind"] == "error"
    assert isinstance(heard[1].metadata["reason"], ValueError)
    assert isinstance(heard[1].metadata["stacktrace"], list)


class Abort(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError, "error"),
        (StopIteration, "error"),
        (TimeoutError, "error"),
        (KeyboardInterrupt, "exit"),
        (SystemExit, "exit"),
        (GeneratorExit, "exit"),
        (asyncio.CancelledError, "exit"),
        (Abort, "exit"),
    ],
)
def test_kind_is_error_for_an_exception_and_exit_for_any_other(bus, heard, error, kind):
    with pytest.raises(error), bus.span(("s",)):
        raise error
    assert heard[-1].event == EXCEPTION
    assert heard[-1].metadata["kind"] == kind
    assert type(heard[-1].metadata["reason"]) is error


def test_a_span_by_hand_stops_once(bus, heard):
    span = bus.start_span(("s",), {"m": 1})
    assert heard.names == [START]
    span.stop()
    span.stop()
    span.exception(ValueError())
    assert heard.names == [START, STOP]
    assert heard[1].metadata["m"] == 1


def test_a_span_by_hand_fails_once_and_does_not_raise(bus, heard):
    span = bus.start_span(("s",))
    error = ValueError("never raised")
    span.exception(error)
    span.exception(KeyError())
    span.stop()
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["reason"] is error
    assert heard[1].metadata["stacktrace"] == []


def test_what_is_added_after_the_end_changes_nothing(bus, heard):
    span = bus.start_span(("s",))
    span.stop()
    span.measure(loss=1)
    span.annotate(step=1)
    span.stop()
    assert len(heard) == 2
    assert "loss" not in heard[1].measurements


def test_a_span_ended_by_hand_inside_its_block_is_not_ended_again(bus, heard):
    with pytest.raises(KeyError):
        fail_inside(bus.span(("s",)), KeyError(), Span.stop)
    assert heard.names == [START, STOP]


def test_ending_what_has_not_begun_does_nothing(bus, heard):
    span = bus.span(("s",))
    span.stop()
    span.exception(ValueError())
    assert heard == []
    with span:
        pass
    assert heard.names == [START, STOP]


def test_a_span_is_one_operation(bus, heard):
    span = bus.span(("s",))
    with span:
        pass
    with pytest.raises(RuntimeError) as caught, span:
        pass
    assert str(caught.value) == (
        "Span ('s',) has begun already, and a span is one operation. "
        "Make a new one with telemetry.span()."
    )
    with pytest.raises(RuntimeError, match="has begun already"):
        bus.start_span(("s",)).__enter__()


@pytest.mark.parametrize("error", ["text", None, ValueError], ids=repr)
def test_a_span_fails_with_an_exception_only(bus, heard, error):
    span = bus.start_span(("s",))
    with pytest.raises(TypeError) as caught:
        span.exception(error)
    assert str(caught.value) == (
        f"Span ('s',) can fail with an exception only, got {error!r} ({type(error).__name__})."
    )
    span.stop()
    assert heard.names == [START, STOP]


def test_async_with_is_a_span(bus, heard):
    async def main():
        async with bus.span(("s",)) as span:
            span.measure(n=1)
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="x"):
            async with bus.span(("s",)):
                raise ValueError("x")

    asyncio.run(main())
    assert heard.names == [START, STOP, START, EXCEPTION]
    assert heard[1].measurements["n"] == 1


def test_a_cancelled_task_ends_its_span_with_an_exit(bus, heard):
    async def work():
        async with bus.span(("s",)):
            await asyncio.get_running_loop().create_future()

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["kind"] == "exit"
    assert isinstance(heard[1].metadata["reason"], asyncio.CancelledError)


def test_a_timeout_ends_its_span_once(bus, heard):
    async def main():
        async with bus.span(("outer",)), asyncio.timeout(0), bus.span(("inner",)):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert heard.names == [
        ("outer", "start"),
        ("inner", "start"),
        ("inner", "exception"),
        ("outer", "exception"),
    ]
    assert heard[2].metadata["kind"] == "exit"
    assert heard[3].metadata["kind"] == "error"
    assert isinstance(heard[3].metadata["reason"], TimeoutError)


def test_a_task_cancelled_before_it_began_has_no_span(bus, heard):
    async def work():
        async with bus.span(("s",)):
            pass

    async def main():
        task = asyncio.create_task(work())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert heard == []


def test_a_start_handler_that_interrupts_still_lets_the_span_end(bus, heard):
    """A ``KeyboardInterrupt`` passes through the bus; what was announced as begun has ended."""

    def interrupt(*_):
        raise KeyboardInterrupt

    bus.attach("interrupt", START, interrupt)
    with pytest.raises(KeyboardInterrupt), bus.span(("s",)):
        pytest.fail("the block must not run")
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["kind"] == "exit"
    with pytest.raises(KeyboardInterrupt):
        bus.start_span(("s",))
    assert ends(heard) == ["exception", "exception"]


def test_ambient_context_is_merged_at_each_event_as_it_is_then(bus, heard):
    span = bus.span(("s",), {"m": 1})
    with telemetry.context(step=1, phase="begin"):
        span.begin()
    with telemetry.context(step=2, m=9):
        span.stop()
    start, stop = heard
    assert start.metadata == {KEY: span.context, "step": 1, "phase": "begin", "m": 1}
    assert stop.metadata == {KEY: span.context, "step": 2, "m": 1}


def test_the_callers_metadata_are_read_when_the_span_begins(bus, heard):
    mine = {"step": 1}
    span = bus.start_span(("s",), mine)
    mine["step"] = 2
    span.stop()
    assert [e.metadata["step"] for e in heard] == [1, 1]
    assert mine == {"step": 2}


def test_the_end_of_an_unheard_span_is_offered_to_whoever_listens_by_then(bus, recorder):
    with bus.span(("s",), {"m": 1}) as span:
        span.measure(n=1)
        bus.attach("h", telemetry.ALL, recorder)
    (stop,) = recorder
    assert stop.event == STOP
    assert stop.measurements["n"] == 1
    assert stop.measurements["duration"] >= 0
    assert stop.metadata["m"] == 1
    assert isinstance(stop.metadata[KEY], SpanContext)
    assert stop.metadata[KEY].parent_id is None


def test_the_failure_of_an_unheard_span_is_offered_too(bus, recorder):
    with pytest.raises(KeyError):
        fail_inside(bus.span(("s",)), KeyError(), lambda _: bus.attach("h", EXCEPTION, recorder))
    assert recorder.names == [EXCEPTION]


def test_a_listener_of_stop_alone_hears_no_failure(bus, recorder):
    bus.attach("h", STOP, recorder)
    with pytest.raises(KeyError), bus.span(("s",)):
        raise KeyError
    assert recorder == []


def test_a_span_nobody_hears_ends_quietly(bus):
    with bus.span(("s",)) as span:
        span.measure(n=1)
    span.stop()
    with pytest.raises(KeyError), bus.span(("s",)):
        raise KeyError


def test_a_handler_failing_on_a_span_does_not_disturb_it(bus, heard):
    bus.attach("bad", ("s", "**"), lambda *_: 1 / 0)
    with bus.span(("s",)):
        ran = True
    assert ran
    assert [n for n in heard.names if n[0] == "s"] == [START, STOP]


def test_it_says_what_it_is(bus):
    assert repr(bus.span(("custom_loss", "x"))) == "<Span custom_loss.x>"
    assert isinstance(bus.span(("s",)), Span)


def test_two_threads_that_end_a_span_at_once_end_it_once(bus):
    bus_events = []
    bus.attach("h", telemetry.ALL, lambda event, *_: bus_events.append(event[-1]))
    rounds = 300
    barrier = threading.Barrier(2)
    spans = [bus.start_span(("s",)) for _ in range(rounds)]
    del bus_events[:]

    def end(how):
        for span in spans:
            barrier.wait(60)
            how(span)

    threads = [
        threading.Thread(target=end, args=(how,))
        for how in (Span.stop, lambda span: span.exception(ValueError()))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bus_events) == rounds
    assert set(bus_events) <= {"stop", "exception"}


actions = st.lists(st.sampled_from(["stop", "exception", "measure", "annotate"]), max_size=6)


@given(actions=actions, how=st.sampled_from(["with", "hand"]), failing=st.booleans())
def test_every_span_ends_exactly_once(actions, how, failing):
    bus = Registry()

    def act(span):
        for action in actions:
            arguments = [ValueError()] if action == "exception" else []
            getattr(span, action)(*arguments)
        if failing:
            raise KeyError

    with capture(registry=bus) as events:
        span = bus.start_span(("s",)) if how == "hand" else bus.span(("s",))
        try:
            if how == "with":
                with span:
                    act(span)
            else:
                act(span)
        except KeyError as error:
            span.exception(error)
        span.stop()
    first = next((a for a in actions if a in ("stop", "exception")), None)
    assert ends(events) == [first or ("exception" if failing else "stop")]
    assert events[0].event == START
