import asyncio
import logging
import threading
import time
import traceback
from contextlib import nullcontext

import pytest

from telemetry import ALL, Registry, context

FAILURE = ("telemetry", "handler", "failure")


def fail(event, measurements, metadata, config):
    raise ValueError(f"cannot take {event}")


def errors(caplog):
    return [r for r in caplog.records if r.name == "telemetry" and r.levelno == logging.ERROR]


def test_the_emitter_is_not_told(bus):
    bus.attach("bad", ("a",), fail)
    assert bus.execute(("a",), {}) is None


def test_a_failing_handler_is_detached_from_all_its_events(bus):
    attachment = bus.attach_many("bad", [("a",), ("b", "*"), FAILURE], fail)
    bus.execute(("a",), {})
    assert bus.list_handlers() == []
    assert not attachment.active


def test_it_is_detached_first_then_announced_then_logged_then_the_others_run(bus, caplog):
    order = []

    def listener(event, measurements, metadata, config):
        attached = {info.id for info in bus.list_handlers()}
        order.append((event, attached, len(errors(caplog))))

    bus.attach_many("bad", [("a",), ("b",)], fail)
    bus.attach_many("listener", [FAILURE, ("a",)], listener)
    bus.execute(("a",), {})
    assert order == [(FAILURE, {"listener"}, 0), (("a",), {"listener"}, 1)]


def test_the_failure_event_says_everything_about_it(bus, recorder):
    config = object()
    bus.attach("bad", ("a", "b"), fail, config)
    bus.attach("listener", FAILURE, recorder)
    monotonic, system = time.monotonic_ns(), time.time_ns()
    bus.execute(("a", "b"), {"n": 1})
    (failure,) = recorder
    assert failure.measurements.keys() == {"monotonic_time", "system_time"}
    assert monotonic <= failure.measurements["monotonic_time"] <= time.monotonic_ns()
    assert system <= failure.measurements["system_time"] <= time.time_ns()
    stacktrace = failure.metadata.pop("stacktrace")
    reason = failure.metadata.pop("reason")
    assert failure.metadata == {
        "event_name": ("a", "b"),
        "handler_id": "bad",
        "handler_config": config,
        "kind": "error",
    }
    assert type(reason) is ValueError
    assert str(reason) == "cannot take ('a', 'b')"
    assert all(isinstance(frame, traceback.FrameSummary) for frame in stacktrace)
    assert isinstance(stacktrace, list)
    assert stacktrace[-1].name == "fail"


def test_it_is_logged_once_with_the_traceback(bus, caplog):
    bus.attach("bad", ("a", "b"), fail)
    bus.execute(("a", "b"), {})
    (record,) = errors(caplog)
    assert record.getMessage() == (
        "Handler 'bad' failed on event a.b and was detached: "
        """ValueError("cannot take ('a', 'b')")"""
    )
    assert record.exc_info[0] is ValueError


def test_the_remaining_handlers_run(bus, recorder):
    bus.attach("before", ("a",), recorder)
    bus.attach("bad", ("a",), fail)
    bus.attach("worse", ("a",), fail)
    bus.attach("after", ("a",), recorder)
    bus.execute(("a",), {})
    assert recorder.names == [("a",), ("a",)]
    assert [info.id for info in bus.list_handlers()] == ["before", "after"]


def test_a_kept_handler_stays_attached_and_is_announced_each_time(bus, recorder, caplog):
    attachment = bus.attach("bad", ("a",), fail, on_failure="keep")
    bus.attach("listener", FAILURE, recorder)
    bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert attachment.active
    assert [e.metadata["handler_id"] for e in recorder] == ["bad", "bad"]
    assert [r.getMessage() for r in errors(caplog)] == [
        "Handler 'bad' failed on event a and stays attached: ValueError(\"cannot take ('a',)\")"
    ] * 2


@pytest.mark.parametrize("policy", ["detach", "keep"])
def test_what_fails_on_a_failure_event_is_only_logged(bus, recorder, caplog, policy):
    bus.attach("bad", ("a",), fail)
    bus.attach("bad listener", FAILURE, fail, on_failure=policy)
    bus.attach("listener", FAILURE, recorder)
    bus.execute(("a",), {})
    assert [e.metadata["handler_id"] for e in recorder] == ["bad"]
    assert [r.args[0] for r in errors(caplog)] == ["bad listener", "bad"]
    kept = [] if policy == "detach" else ["bad listener"]
    assert [info.id for info in bus.list_handlers()] == [*kept, "listener"]


def test_a_kept_handler_that_hears_its_own_failure_does_not_recurse(bus, caplog):
    attachment = bus.attach("bad", ALL, fail, on_failure="keep")
    bus.execute(("a",), {})
    assert [r.args[1] for r in errors(caplog)] == ["telemetry.handler.failure", "a"]
    assert attachment.active


def test_what_fails_on_another_event_emitted_by_a_failure_handler_is_only_logged(
    bus, recorder, caplog
):
    def alarm(event, measurements, metadata, config):
        bus.execute(("alarm",), {})

    bus.attach_many("bad", [("a",), ("alarm",)], fail, on_failure="keep")
    bus.attach("alarm", FAILURE, alarm)
    bus.attach("listener", FAILURE, recorder)
    bus.execute(("a",), {})
    assert [e.metadata["event_name"] for e in recorder] == [("a",)]
    assert [r.args[1] for r in errors(caplog)] == ["alarm", "a"]


def test_failures_are_announced_again_after_one_was_handled(bus, recorder):
    bus.attach("bad", ("a",), fail, on_failure="keep")
    bus.attach("bad listener", FAILURE, fail)
    bus.attach("listener", FAILURE, recorder)
    for _ in range(3):
        bus.execute(("a",), {})
    assert len(recorder) == 3


def test_failures_on_another_registry_while_one_is_handled_are_only_logged(recorder, caplog):
    first, second = Registry(), Registry()
    first.attach("bad", ("a",), fail)
    first.attach("forward", FAILURE, lambda *event: second.execute(*event[:3]))
    second.attach("also bad", ALL, fail)
    second.attach("listener", FAILURE, recorder)
    first.execute(("a",), {})
    assert [e.metadata["handler_id"] for e in recorder] == ["bad"]
    assert [r.args[0] for r in errors(caplog)] == ["also bad", "bad"]


def test_a_task_started_by_a_failure_handler_announces_its_own_failures(bus, recorder):
    """Handling ends when the handler returns, and not in what it has started meanwhile."""
    tasks = []

    async def report():
        await asyncio.sleep(0)
        bus.execute(("report",), {})

    async def main():
        bus.execute(("a",), {})
        await asyncio.gather(*tasks)

    bus.attach("bad", ("a",), fail)
    bus.attach("bad too", ("report",), fail)
    bus.attach("reporter", FAILURE, lambda *_: tasks.append(asyncio.ensure_future(report())))
    bus.attach("listener", FAILURE, recorder)
    asyncio.run(main())
    assert [e.metadata["handler_id"] for e in recorder] == ["bad", "bad too"]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, Stop])
def test_what_is_no_exception_passes_through_and_punishes_nobody(bus, caplog, recorder, error):
    def interrupted(*_):
        raise error

    attachment = bus.attach("h", ("a",), interrupted)
    bus.attach("after", ALL, recorder)
    with pytest.raises(error):
        bus.execute(("a",), {})
    assert attachment.active
    assert recorder == []
    assert errors(caplog) == []


def test_a_handler_detached_in_the_middle_of_a_dispatch_may_fail_once_more(bus, recorder):
    bus.attach("first", ("a",), lambda *_: bus.detach("bad"))
    bus.attach("bad", ("a",), fail)
    bus.attach("listener", FAILURE, recorder)
    bus.execute(("a",), {})
    assert [e.metadata["handler_id"] for e in recorder] == ["bad"]


def test_a_late_failure_does_not_detach_a_newcomer_with_the_same_id(bus, recorder):
    def swap_and_fail(*_):
        bus.detach("h")
        bus.attach("h", ("a",), recorder)
        raise ValueError

    bus.attach("h", ("a",), swap_and_fail)
    bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert len(recorder) == 1


def test_failing_in_two_threads_at_once_announces_both(bus, recorder, caplog):
    together = threading.Barrier(2)

    def fail_together(*_):
        together.wait(60)
        raise ValueError

    bus.attach("bad", ("a",), fail_together)
    bus.attach("listener", FAILURE, recorder)
    threads = [threading.Thread(target=bus.execute, args=(("a",), {})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.metadata["handler_id"] for e in recorder] == ["bad", "bad"]
    assert len(errors(caplog)) == 2


def test_failing_while_another_thread_handles_a_failure_is_announced(bus, recorder):
    handling, resume = threading.Event(), threading.Event()

    def slow_listener(event, measurements, metadata, config):
        if metadata["handler_id"] == "first":
            handling.set()
            resume.wait(60)

    bus.attach("first", ("a",), fail)
    bus.attach("second", ("b",), fail)
    bus.attach("slow", FAILURE, slow_listener)
    bus.attach("listener", FAILURE, recorder)
    thread = threading.Thread(target=bus.execute, args=(("a",), {}))
    thread.start()
    handling.wait(60)
    bus.execute(("b",), {})
    resume.set()
    thread.join()
    assert [e.metadata["handler_id"] for e in recorder] == ["second", "first"]


@pytest.mark.parametrize("block", [nullcontext(), context(run_id="r")], ids=["bare", "context"])
def test_metadata_that_are_no_mapping_are_the_emitters_mistake(bus, caplog, recorder, block):
    def read(event, measurements, metadata, config):
        return metadata["step"]

    attachment = bus.attach("reader", ("a",), read)
    bus.attach("listener", FAILURE, recorder)
    with pytest.raises(TypeError) as caught, block:
        bus.execute(("a",), {}, 7)
    assert str(caught.value) == (
        "Metadata of event ('a',) must be a mapping, got 7 (int). Write {'name': value}."
    )
    assert attachment.active
    assert recorder == []
    assert errors(caplog) == []


def test_the_exceptions_of_a_handler_do_not_chain_into_the_emitters_own(bus):
    bus.attach("bad", ("a",), fail)

    def emitter():
        try:
            {}["own"]
        except KeyError:
            bus.execute(("a",), {})
            raise

    with pytest.raises(KeyError) as caught:
        emitter()
    assert caught.value.__context__ is None


class Raising(logging.Handler):
    def emit(self, record):
        raise OSError("disk")


def test_a_logging_set_up_that_raises_hurts_nobody(bus, recorder):
    def fail(event, measurements, metadata, config):
        raise ValueError("x")

    logger, broken = logging.getLogger("telemetry"), Raising()
    bus.attach("bad", ("a",), fail)
    bus.attach("good", ("a",), recorder)
    logger.addHandler(broken)
    try:
        bus.execute(("a",), {})
    finally:
        logger.removeHandler(broken)
    assert [event.event for event in recorder] == [("a",)]
