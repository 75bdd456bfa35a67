"""The time of an event that is emitted again is that of its first emission."""

import time

import handlers
from handlers.clock import at_time

STEP = ("training", "step")
LONG_AGO = 1795257000123456789


def test_outside_of_an_event_it_is_now():
    assert time.time_ns() <= handlers.event_time_ns() <= time.time_ns()


def test_a_worker_is_told_the_time_of_an_event_that_is_emitted_again(bus, gated):
    with handlers.attach("gated", registry=bus) as attachment:
        with at_time(LONG_AGO):
            bus.execute(STEP, {}, {})
        bus.execute(STEP, {}, {})
        assert attachment.flush()
        again, now = attachment.handler.times
    assert again == LONG_AGO
    assert now > LONG_AGO


def test_a_file_written_by_a_worker_has_the_time_of_an_event_that_is_emitted_again(
    bus, tmp_path, read
):
    path = tmp_path / "m.jsonl"
    with handlers.attach("jsonl", path=path, registry=bus, background=True), at_time(LONG_AGO):
        bus.execute(STEP, {}, {})
    assert [record["timestamp"] for record in read(path)] == ["2026-11-21T10:30:00.123456Z"]
