import gc
import json
import weakref
from collections import ChainMap
from types import MappingProxyType

import pytest

import telemetry
from telemetry import ALL, HandlerInfo, Registry


def test_a_handler_gets_event_measurements_metadata_and_config(bus, recorder):
    config = object()
    bus.attach("h", ("training", "step"), recorder, config)
    bus.execute(("training", "step"), {"loss": 2.5, "lr": 2e-4}, {"step": 1})
    assert recorder == [(("training", "step"), {"loss": 2.5, "lr": 2e-4}, {"step": 1})]
    assert recorder.configs == [config]


def test_config_and_metadata_may_be_left_out(bus):
    seen = []
    bus.attach("h", ("a",), lambda *event: seen.append(event))
    bus.execute(("a",), {})
    ((event, measurements, metadata, config),) = seen
    assert (event, measurements, dict(metadata), config) == (("a",), {}, {}, None)


def test_the_default_metadata_are_a_dictionary_of_the_events_own(bus):
    seen = []

    def write(event, measurements, metadata, config):
        seen.append(json.dumps(metadata))  # a handler may need a real dictionary
        metadata["mine"] = 1

    attachment = bus.attach("h", ("a",), write)
    bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert attachment.active
    assert seen == ["{}", "{}"]


@pytest.mark.parametrize(
    "mapping", [MappingProxyType({"x": 1}), ChainMap({"x": 1}), {"x": 1}], ids=type
)
def test_mappings_are_handed_over_as_they_are(bus, mapping):
    seen = []
    bus.attach("h", ("a",), lambda *event: seen.append(event))
    bus.execute(("a",), mapping, mapping)
    assert seen[0][1] is mapping
    assert seen[0][2] is mapping


def test_handlers_run_in_the_order_they_were_attached(bus):
    order = []
    bus.attach("exact", ("a", "b"), lambda *_: order.append("exact"))
    bus.attach("all", ALL, lambda *_: order.append("all"))
    bus.attach("star", ("a", "*"), lambda *_: order.append("star"))
    bus.execute(("a", "b"), {})
    bus.detach("exact")
    bus.attach("exact", ("a", "b"), lambda *_: order.append("again"))
    bus.execute(("a", "b"), {})
    assert order == ["exact", "all", "star", "all", "star", "again"]


def test_a_handler_is_called_once_however_many_of_its_patterns_match(bus, recorder):
    bus.attach_many("h", [("a", "b"), ("a", "*"), ("a", "b"), ("a", "**"), ALL], recorder)
    bus.execute(("a", "b"), {"n": 1})
    assert len(recorder) == 1


def test_the_same_function_under_two_ids_is_called_twice(bus, recorder):
    bus.attach("one", ("a",), recorder, "first")
    bus.attach("two", ("a",), recorder, "second")
    bus.execute(("a",), {})
    assert recorder.configs == ["first", "second"]


def test_attach_many_takes_any_iterable(bus, recorder):
    bus.attach_many("h", (name for name in [("a",), ("b",)]), recorder)
    bus.execute(("b",), {})
    assert recorder.names == [("b",)]


def test_detach_is_from_all_events(bus, recorder):
    bus.attach_many("h", [("a",), ("b",), ("c", "**")], recorder)
    bus.detach("h")
    for event in (("a",), ("b",), ("c", "d")):
        bus.execute(event, {})
        assert not bus.enabled(event)
    assert recorder == []
    assert bus.list_handlers() == []


def test_detach_missing_ok_does_nothing_for_an_unknown_id(bus, recorder):
    bus.attach("h", ("a",), recorder)
    assert bus.detach("other", missing_ok=True) is None
    bus.detach("h", missing_ok=True)
    assert bus.list_handlers() == []


@pytest.mark.parametrize("handler_id", ["text", 7, ("jsonl", 3), None, frozenset({1})], ids=repr)
def test_any_hashable_is_an_id(bus, recorder, handler_id):
    assert bus.attach(handler_id, ("a",), recorder).id == handler_id
    bus.execute(("a",), {})
    bus.detach(handler_id)
    bus.execute(("a",), {})
    assert len(recorder) == 1


def test_an_id_can_be_used_again_after_detaching(bus, recorder, new_recorder):
    bus.attach("h", ("a",), recorder)
    bus.detach("h")
    second = new_recorder()
    bus.attach("h", ("a",), second)
    bus.execute(("a",), {})
    assert (len(recorder), len(second)) == (0, 1)


def test_enabled_tells_whether_anybody_listens(bus, recorder):
    assert bus.enabled(("a", "b")) is False
    bus.attach("h", ("a", "*"), recorder)
    assert bus.enabled(("a", "b")) is True
    assert bus.enabled(("a",)) is False
    bus.detach("h")
    assert bus.enabled(("a", "b")) is False


def test_what_was_found_before_an_attach_is_not_remembered_after_it(bus, recorder):
    bus.execute(("a",), {})
    assert not bus.enabled(("a",))
    bus.attach("h", ("a",), recorder)
    bus.execute(("a",), {"n": 1})
    bus.detach("h")
    bus.execute(("a",), {"n": 2})
    assert [e.measurements for e in recorder] == [{"n": 1}]


def test_list_handlers_has_an_entry_per_pattern_in_order(bus, recorder):
    bus.attach_many("first", [("a", "b"), ("c", "*")], recorder, "config")
    bus.attach("second", ALL, print)
    assert bus.list_handlers() == [
        HandlerInfo("first", ("a", "b"), recorder, "config"),
        HandlerInfo("first", ("c", "*"), recorder, "config"),
        HandlerInfo("second", ("**",), print, None),
    ]


def test_a_pattern_given_twice_is_listed_once(bus, recorder):
    bus.attach_many("h", [("a",), ("a",)], recorder)
    assert len(bus.list_handlers()) == 1


@pytest.mark.parametrize(
    ("prefix", "listed"),
    [
        ((), ["exact", "long", "star", "rest", "all"]),
        (("a",), ["exact", "long", "star", "rest", "all"]),
        (("a", "b"), ["exact", "long", "star", "rest", "all"]),
        (("a", "b", "c"), ["long", "rest", "all"]),
        (("a", "c"), ["star", "rest", "all"]),
        (("a", "b", "c", "d"), ["rest", "all"]),
        (("x",), ["all"]),
    ],
    ids=repr,
)
def test_list_handlers_has_what_can_match_something_under_the_prefix(bus, prefix, listed):
    patterns = {
        "exact": ("a", "b"),
        "long": ("a", "b", "c"),
        "star": ("a", "*"),
        "rest": ("a", "**"),
        "all": ALL,
    }
    for handler_id, pattern in patterns.items():
        bus.attach(handler_id, pattern, print)
    assert [info.id for info in bus.list_handlers(prefix)] == listed


def test_registries_are_isolated(bus, recorder, new_recorder):
    other, elsewhere = Registry(), new_recorder()
    bus.attach("h", ALL, recorder)
    other.attach("h", ALL, elsewhere)
    bus.execute(("a",), {})
    with other.span(("b",)):
        pass
    assert recorder.names == [("a",)]
    assert elsewhere.names == [("b", "start"), ("b", "stop")]
    assert telemetry.list_handlers() == []


@pytest.mark.parametrize(
    "name",
    [
        "attach",
        "attach_many",
        "detach",
        "execute",
        "span",
        "start_span",
        "list_handlers",
        "enabled",
    ],
)
def test_the_functions_of_the_module_are_those_of_the_default_registry(name):
    assert getattr(telemetry, name) == getattr(telemetry.default_registry, name)
    assert getattr(telemetry, name).__self__ is telemetry.default_registry


def test_context_is_shared_by_all_registries():
    assert Registry.context is telemetry.context


def test_the_module_emits_on_the_default_registry(recorder):
    telemetry.attach("h", ("a", "**"), recorder)
    telemetry.execute(("a",), {"n": 1})
    with telemetry.span(("a", "b")):
        telemetry.start_span(("a", "c")).stop()
    telemetry.detach("h")
    assert recorder.names == [
        ("a",),
        ("a", "b", "start"),
        ("a", "c", "start"),
        ("a", "c", "stop"),
        ("a", "b", "stop"),
    ]


def test_handlers_are_strongly_referenced_while_attached_and_released_after(bus):
    class Sink:
        def __call__(self, *event):
            calls.append(event)

    calls = []
    bus.attach("h", ("a",), Sink())
    gc.collect()
    bus.execute(("a",), {})
    assert len(calls) == 1
    alive = weakref.ref(bus.list_handlers()[0].function)
    bus.detach("h")
    gc.collect()
    assert alive() is None


def test_a_registry_that_is_dropped_is_collected():
    bus = Registry()
    bus.attach("h", ("a",), print)
    alive = weakref.ref(bus)
    del bus
    gc.collect()
    assert alive() is None


def test_what_a_handler_returns_is_ignored(bus, recorder):
    bus.attach("h", ("a",), lambda *_: "something")
    bus.attach("after", ("a",), recorder)
    assert bus.execute(("a",), {}) is None
    assert len(recorder) == 1


def test_an_event_name_equal_to_a_cached_one_is_the_same_event(bus, recorder):
    bus.attach("h", ("a", "b"), recorder)
    bus.execute(("a", "b"), {})
    bus.execute(tuple("ab"), {})
    assert len(recorder) == 2
