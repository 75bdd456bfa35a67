"""Probes and handlers of a poller that fail."""

import logging
import queue
import traceback

import pytest

import telemetry

SAMPLE = ("performance", "sample")
FAILURE = ("telemetry", "probe", "failure")
SOON = 0.01
HANG = 60


def until(heard, wanted):
    """What is heard up to a sample with a value."""
    events = []
    while not events or events[-1].measurements.get("n") != wanted:
        events.append(heard.get(timeout=HANG))
    return events


def test_a_failure_is_announced_once_and_again_only_after_the_probe_has_worked(
    start, heard, failing_on
):
    start(probes={"n": failing_on(2, 3, 5)})
    seen = [
        event.metadata["reason"].args[0] if event.event == FAILURE else event.measurements
        for event in until(heard, 6)
    ]
    assert seen == [{"n": 1}, 2, {"n": 4}, 5, {"n": 6}]


def test_the_others_go_on_being_asked(start, heard, failing_on):
    probes = {"broken": lambda: 1 / 0, "n": failing_on()}
    start(probes=probes)
    assert [event.event for event in until(heard, 3)] == [FAILURE, SAMPLE, SAMPLE, SAMPLE]


def test_the_event_is_as_the_catalogue_has_it(start, heard):
    with telemetry.context(run_id="r", step=3):
        start(probes={"broken": lambda: 1 / 0})
    event = heard.get(timeout=HANG)
    spec = telemetry.events.find(FAILURE)
    assert event.event == FAILURE
    assert event.measurements.keys() == {field.name for field in spec.measurements}
    assert event.metadata.keys() == {"run_id", *(field.name for field in spec.metadata)}
    assert (event.metadata["probe"], event.metadata["kind"]) == ("broken", "error")
    assert isinstance(event.metadata["reason"], ZeroDivisionError)
    assert isinstance(event.metadata["stacktrace"], traceback.StackSummary)


def test_it_is_logged_once(start, heard, caplog, failing_on):
    start(probes={"broken": lambda: 1 / 0, "n": failing_on()})
    until(heard, 3)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("telemetry", logging.ERROR)
    assert record.getMessage() == (
        "Probe 'broken' of the poller failed, and goes on being asked: "
        "ZeroDivisionError('division by zero'). Said again only after it has worked."
    )
    assert record.exc_info[1].args == ("division by zero",)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_would_end_a_program_does_not_end_the_poller(start, heard, error, failing_on):
    def leave():
        raise error

    start(probes={"leaving": leave, "n": failing_on()})
    failure = until(heard, 2)[0]
    assert (failure.metadata["kind"], failure.metadata["reason"]) == ("exit", error)


class UnprintableError(Exception):
    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


def test_an_error_that_cannot_be_printed_is_told_like_others(
    start, heard, caplog, capfd, failing_on
):
    def fail():
        raise UnprintableError

    started = start(probes={"broken": fail, "n": failing_on()})
    assert [event.event for event in until(heard, 2)] == [FAILURE, SAMPLE, SAMPLE]
    started.stop()
    (record,) = caplog.records
    assert record.getMessage() == (
        "Probe 'broken' of the poller failed, and goes on being asked: "
        "<unprintable UnprintableError object>. Said again only after it has worked."
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_handler_that_would_end_a_program_does_not_end_the_poller(
    bus, start, caplog, error, failing_on
):
    calls = queue.SimpleQueue()

    def leave(*_):
        calls.put(1)
        raise error

    bus.attach("leaving", SAMPLE, leave)
    started = start(probes={"n": failing_on()})
    for _ in range(3):
        calls.get(timeout=HANG)
    assert started.active
    started.stop()
    (message,) = caplog.messages
    assert message == (
        f"A handler of performance.sample raised {error!r}. The poller goes on; said again only "
        "after a whole sample."
    )


def test_a_handler_of_a_failure_that_would_end_a_program_does_not_either(
    bus, start, caplog, failing_on
):
    def leave(*_):
        raise SystemExit

    events = queue.SimpleQueue()
    bus.attach("leaving", FAILURE, leave)
    bus.attach("sink", SAMPLE, lambda event, measurements, *_: events.put(measurements))
    start(probes={"n": failing_on(2)})
    assert [events.get(timeout=HANG) for _ in range(2)] == [{"n": 1}, {"n": 3}]
    of_probe, of_handler = caplog.messages
    assert of_probe.startswith(
        "Probe 'n' of the poller failed, and goes on being asked: OSError(2)"
    )
    assert of_handler == (
        "A handler of telemetry.probe.failure raised SystemExit(). The poller goes on; said again "
        "only after a whole sample."
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"n": "3"}, "It measured 'n' as '3' (str). A number is wanted, or None if there is none."),
        ({"": 1}, "Name of a measurement must not be empty."),
        ([1], "It returned [1] (list). A mapping of names to numbers is wanted."),
        ({"queue_depth": 1}, "It measured 'queue_depth', which another probe measures already."),
    ],
)
def test_an_answer_that_is_none_is_a_failure(start, heard, answer, says):
    def mine():
        return answer

    start(probes=mine, queue_depth=lambda: 5)
    failure, sample = heard.get(timeout=HANG), heard.get(timeout=HANG)
    assert str(failure.metadata["reason"]) == says
    assert "mine" in failure.metadata["probe"]
    assert sample.measurements == {"queue_depth": 5}
