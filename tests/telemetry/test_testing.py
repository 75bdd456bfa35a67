import threading
from collections import ChainMap

import pytest

import telemetry
from telemetry import Event, Registry
from telemetry.testing import capture


def test_it_collects_events_from_the_default_registry():
    with capture(("a", "*")) as events:
        telemetry.execute(("a", "b"), {"n": 1}, {"step": 1})
        telemetry.execute(("b",), {})
        assert len(events) == 1
    telemetry.execute(("a", "b"), {"n": 2})
    assert events == [Event(("a", "b"), {"n": 1}, {"step": 1})]
    assert type(events[0]) is Event
    assert telemetry.list_handlers() == []


def test_without_patterns_it_collects_everything():
    with capture() as events:
        telemetry.execute(("a",), {})
        telemetry.execute(("b", "c"), {})
    assert [e.event for e in events] == [("a",), ("b", "c")]


def test_several_patterns_collect_an_event_once():
    with capture(("a",), ("a", "**"), ("b",)) as events:
        for name in ("a", "b", "c"):
            telemetry.execute((name,), {})
    assert [e.event for e in events] == [("a",), ("b",)]


def test_it_listens_to_the_registry_it_is_given(bus):
    with capture(registry=bus) as events:
        telemetry.execute(("a",), {})
        bus.execute(("b",), {})
    assert [e.event for e in events] == [("b",)]


def test_captures_nest_and_do_not_disturb_each_other():
    with capture() as outer:
        with capture() as inner:
            telemetry.execute(("a",), {})
        telemetry.execute(("b",), {})
    assert ([e.event for e in outer], [e.event for e in inner]) == ([("a",), ("b",)], [("a",)])


def test_the_past_does_not_change_with_the_emitters_mappings():
    measurements, metadata = {"n": 1}, ChainMap({"step": 1})
    with capture() as events:
        telemetry.execute(("a",), measurements, metadata)
        measurements["n"] = 2
        metadata["step"] = 2
    assert events == [Event(("a",), {"n": 1}, {"step": 1})]


def test_an_exception_detaches_and_goes_on():
    with pytest.raises(KeyError, match="x"), capture():
        raise KeyError("x")
    assert telemetry.list_handlers() == []


def test_it_hears_all_threads():
    bus = Registry()
    with capture(registry=bus) as events:
        threads = [threading.Thread(target=bus.execute, args=((n,), {})) for n in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(e.event for e in events) == [("a",), ("b",), ("c",)]
