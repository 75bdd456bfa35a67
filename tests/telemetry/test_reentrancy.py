"""Handlers and finalizers that use the bus from inside the bus."""

import gc
import sys

import pytest

from telemetry import ALL


def test_a_handler_may_emit(bus, recorder):
    def chain(event, measurements, metadata, config):
        bus.execute(("b",), {"n": measurements["n"] + 1})

    bus.attach("chain", ("a",), chain)
    bus.attach("h", ALL, recorder)
    bus.execute(("a",), {"n": 1})
    assert [(e.event, e.measurements["n"]) for e in recorder] == [(("b",), 2), (("a",), 1)]


def test_a_handler_may_open_a_span(bus, recorder):
    def work(*_):
        with bus.span(("s",)):
            pass

    bus.attach("worker", ("a",), work)
    bus.attach("h", ("s", "*"), recorder)
    bus.execute(("a",), {})
    assert recorder.names == [("s", "start"), ("s", "stop")]


def test_a_handler_attached_meanwhile_is_called_from_the_next_event_on(bus, recorder):
    def attach_once(event, measurements, metadata, config):
        bus.detach("late", missing_ok=True)
        bus.attach("late", ALL, recorder)

    bus.attach("first", ("a",), attach_once)
    bus.execute(("a",), {"n": 1})
    assert recorder == []
    bus.execute(("b",), {"n": 2})
    assert [e.measurements for e in recorder] == [{"n": 2}]


def test_a_handler_attached_meanwhile_hears_what_is_emitted_inside(bus, recorder):
    def attach_and_emit(*_):
        bus.attach("late", ALL, recorder)
        bus.execute(("b",), {})

    bus.attach("first", ("a",), attach_and_emit)
    bus.execute(("a",), {})
    assert recorder.names == [("b",)]


def test_a_handler_may_detach_itself(bus):
    calls = []

    def once(event, *_):
        calls.append(event)
        attachment.detach()

    attachment = bus.attach("once", ALL, once)
    bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert calls == [("a",)]


def test_a_handler_that_detaches_itself_and_raises_is_announced(bus, recorder):
    def last_words(*_):
        attachment.detach()
        raise ValueError

    attachment = bus.attach("h", ("a",), last_words)
    bus.attach("listener", ("telemetry", "handler", "failure"), recorder)
    bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert [e.metadata["handler_id"] for e in recorder] == ["h"]


def test_a_handler_detached_meanwhile_may_be_called_that_once_more(bus, recorder):
    bus.attach("first", ("a",), lambda *_: bus.detach("second", missing_ok=True))
    bus.attach("second", ("a",), recorder)
    bus.execute(("a",), {"n": 1})
    bus.execute(("a",), {"n": 2})
    assert [e.measurements for e in recorder] in ([], [{"n": 1}])


def test_handlers_may_detach_each_other(bus):
    order = []

    def rival(name, other):
        def handle(*_):
            order.append(name)
            bus.detach(other, missing_ok=True)

        return handle

    bus.attach("a", ALL, rival("a", "b"))
    bus.attach("b", ALL, rival("b", "a"))
    bus.execute(("x",), {})
    assert order in (["a"], ["a", "b"])
    assert len(bus.list_handlers()) == 2 - len(order)


def test_a_handler_may_replace_itself(bus, recorder):
    def replace(*_):
        bus.detach("h")
        bus.attach("h", ALL, recorder)

    bus.attach("h", ALL, replace)
    bus.execute(("a",), {"n": 1})
    bus.execute(("a",), {"n": 2})
    assert [e.measurements for e in recorder] == [{"n": 2}]


@pytest.mark.parametrize("policy", ["detach", "keep"])
def test_endless_recursion_is_contained(bus, recorder, policy):
    bus.attach("echo", ("a",), lambda *event: bus.execute(*event[:3]), on_failure=policy)
    bus.attach("listener", ("telemetry", "handler", "failure"), recorder)
    bus.execute(("a",), {})
    assert recorder
    assert {type(e.metadata["reason"]) for e in recorder} == {RecursionError}
    bus.attach("after", ("b",), recorder)
    bus.execute(("b",), {})
    assert recorder.names[-1] == ("b",)


def test_endless_recursion_is_contained_when_it_is_handled_near_the_limit(bus, recorder):
    def dive(levels):
        if levels:
            dive(levels - 1)
        else:
            bus.execute(("a",), {})

    bus.attach("echo", ("a",), lambda *event: bus.execute(*event[:3]))
    dive(sys.getrecursionlimit() // 2)
    assert bus.list_handlers() == []


class Finalized:
    """An object in a reference cycle: only the garbage collector can end it."""

    def __init__(self, action):
        self.me = self
        self.action = action

    def __del__(self):
        self.action()


class CollectingId:
    """A handler id whose comparison runs the garbage collector, in the middle of an attach."""

    def __eq__(self, other):
        gc.collect()
        return self is other

    def __hash__(self):
        return 1


def collect_during_attach(bus, action, recorder):
    bus.attach(CollectingId(), ("before",), recorder)
    ran = []

    def once():
        ran.append(True)
        action()

    gc.collect()
    Finalized(once)
    bus.attach("outer", ("a",), recorder)
    assert ran


def test_a_finalizer_may_attach_while_an_attach_is_under_way(bus, recorder):
    collect_during_attach(bus, lambda: bus.attach("inner", ("a",), recorder), recorder)
    bus.execute(("a",), {})
    assert {info.id for info in bus.list_handlers(("a",))} == {"inner", "outer"}
    assert len(recorder) == 2


def test_a_finalizer_may_detach_while_an_attach_is_under_way(bus, recorder):
    bus.attach("victim", ("a",), recorder)
    collect_during_attach(bus, lambda: bus.detach("victim"), recorder)
    bus.execute(("a",), {})
    assert [info.id for info in bus.list_handlers(("a",))] == ["outer"]
    assert len(recorder) == 1


def test_a_finalizer_may_emit_while_an_attach_is_under_way(bus, recorder):
    collect_during_attach(bus, lambda: bus.execute(("before",), {}), recorder)
    assert recorder.names == [("before",)]


def test_a_finalizer_may_take_the_id_that_is_being_attached(bus, recorder, new_recorder):
    first = new_recorder()
    with pytest.raises(ValueError, match="'outer' is already attached"):
        collect_during_attach(bus, lambda: bus.attach("outer", ("a",), first), recorder)
    bus.execute(("a",), {})
    assert (len(first), len(recorder)) == (1, 0)


def test_finalizers_run_by_the_collector_itself_may_use_the_bus(bus, recorder):
    """Many collections at whatever moment: nothing is lost and nothing deadlocks."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(200):
            bus.attach(number, ("a",), recorder)
            Finalized(lambda n=number: bus.detach(n))
            Finalized(lambda: bus.execute(("other",), {}))
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert bus.list_handlers() == []
