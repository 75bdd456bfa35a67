import asyncio
import threading

import pytest

from telemetry import SpanContext

KEY = "telemetry_span_context"


def test_nested_spans_form_a_tree(bus, heard):
    with bus.span(("root",)) as root:
        with bus.span(("child",)) as child, bus.span(("grandchild",)) as grandchild:
            pass
        with bus.span(("second",)) as second:
            pass
    with bus.span(("other",)) as other:
        pass
    assert root.context == SpanContext(root.context.span_id, None, root.context.span_id)
    for span, parent in ((child, root), (grandchild, child), (second, root)):
        assert span.context.parent_id == parent.context.span_id
        assert span.context.trace_id == root.context.span_id
    assert other.context.parent_id is None
    assert other.context.trace_id == other.context.span_id
    spans = {s.context.span_id for s in (root, child, grandchild, second, other)}
    assert len(spans) == 5
    assert {e.metadata[KEY].span_id for e in heard} == spans


def test_a_failed_span_is_nobodys_parent_any_more(bus, heard):
    with pytest.raises(KeyError), bus.span(("a",)):
        raise KeyError
    with bus.span(("b",)) as after:
        pass
    assert after.context.parent_id is None


def test_tasks_inherit_the_span_they_were_started_in(bus, heard):
    async def work(name):
        async with bus.span((name,)) as span:
            await asyncio.sleep(0)
            with bus.span((name, "inner")) as inner:
                await asyncio.sleep(0)
            return span.context, inner.context

    async def main():
        async with bus.span(("root",)) as root:
            tasks = [asyncio.create_task(work(name)) for name in "ab"]
        return root.context, await asyncio.gather(*tasks)

    root, contexts = asyncio.run(main())
    for outer, inner in contexts:
        assert outer.parent_id == root.span_id
        assert inner.parent_id == outer.span_id
        assert inner.trace_id == root.span_id


def test_a_thread_begins_a_tree_of_its_own(bus, heard):
    found = []

    def work():
        with bus.span(("s",)) as span:
            found.append(span.context)

    with bus.span(("root",)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found[0].parent_id is None


def test_a_span_by_hand_is_nobodys_parent_but_has_one(bus, heard):
    with bus.span(("root",)) as root:
        by_hand = bus.start_span(("hand",))
        with bus.span(("child",)) as child:
            by_hand.stop()
    assert by_hand.context.parent_id == root.context.span_id
    assert child.context.parent_id == root.context.span_id


def test_a_span_context_given_by_the_caller_wins_and_becomes_the_parent(bus, heard):
    given_context = SpanContext(1, 2, 3)
    with bus.span(("s",), {KEY: given_context}) as span, bus.span(("child",)) as child:
        pass
    assert span.context == given_context
    assert [e.metadata[KEY] for e in heard if e.event[0] == "s"] == [given_context] * 2
    assert child.context.parent_id == 1
    assert child.context.trace_id == 3


def test_a_foreign_span_context_is_handed_on_and_the_tree_stays_whole(bus, heard):
    with (
        bus.span(("root",)) as root,
        bus.span(("s",), {KEY: "theirs"}) as span,
        bus.span(("child",)) as child,
    ):
        pass
    assert {e.metadata[KEY] for e in heard if e.event[0] == "s"} == {"theirs"}
    assert span.context is None
    assert child.context.parent_id == root.context.span_id


def test_an_unheard_span_takes_no_place_in_the_tree(bus, recorder):
    bus.attach("h", ("heard", "**"), recorder)
    with (
        bus.span(("heard", "root")) as root,
        bus.span(("unheard",)) as unheard,
        bus.span(("heard", "child")) as child,
    ):
        pass
    assert unheard.context is None
    assert child.context.parent_id == root.context.span_id


@pytest.mark.parametrize("last", ["start", "stop", "exception"])
def test_a_span_heard_in_any_of_its_events_has_a_place(bus, recorder, last):
    bus.attach("h", ("s", last), recorder)
    with bus.span(("s",)) as span:
        assert span.context is not None
        with bus.span(("unheard",)) as unheard:
            assert unheard.context is None
