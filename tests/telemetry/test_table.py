import re
import threading

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import telemetry.spans
import telemetry.table
from telemetry import ALL, HandlerExistsError, HandlerNotFoundError, Registry
from telemetry.table import MAX_RESOLVED

SEGMENTS = ("a", "b")
names = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3).map(tuple)
wild = st.builds(
    lambda head, rest: (*head, *rest),
    st.lists(st.sampled_from((*SEGMENTS, "*")), max_size=3),
    st.sampled_from(((), ("**",))),
).filter(bool)
ids = st.integers(0, 4)


def naive_match(pattern, event):
    """Matching by a regular expression over the joined names."""
    forms = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    expression = "".join(forms.get(segment, f"/{segment}") for segment in pattern)
    return re.fullmatch(expression, "".join(f"/{segment}" for segment in event)) is not None


class Naive:
    """The bus as a plain list, searched through for every event."""

    def __init__(self):
        self.handlers = []  # (id, patterns, action)

    def attach(self, handler_id, patterns, action):
        if any(h[0] == handler_id for h in self.handlers):
            raise HandlerExistsError
        self.handlers.append((handler_id, patterns, action))

    def detach(self, handler_id):
        left = [h for h in self.handlers if h[0] != handler_id]
        if len(left) == len(self.handlers):
            raise HandlerNotFoundError
        self.handlers = left

    def execute(self, event):
        called = []
        for handler in list(self.handlers):
            if not any(naive_match(pattern, event) for pattern in handler[1]):
                continue
            called.append((handler[0], event))
            if handler[2] in ("fail", "detach itself"):
                self.handlers = [h for h in self.handlers if h is not handler]
        return called


class BusAgainstNaiveModel(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.bus, self.naive, self.called, self.attachments = Registry(), Naive(), [], []

    def handler(self, handler_id, action):
        def handle(event, measurements, metadata, config):
            self.called.append((config, event))
            if action == "detach itself":
                self.bus.detach(handler_id)
            if action in ("fail", "fail and stay"):
                raise ValueError(action)

        return handle

    def both(self, of_bus, of_naive):
        """Do it to both; they agree also on what they refuse."""
        outcomes = []
        for act in (of_naive, of_bus):
            try:
                outcomes.append((None, act()))
            except (HandlerExistsError, HandlerNotFoundError) as error:
                outcomes.append((type(error), None))
        assert outcomes[0][0] is outcomes[1][0]
        return outcomes[1][1]

    @rule(
        handler_id=ids,
        patterns=st.lists(wild, min_size=1, max_size=3),
        action=st.sampled_from(["listen", "listen", "detach itself", "fail", "fail and stay"]),
    )
    def attach(self, handler_id, patterns, action):
        attachment = self.both(
            lambda: self.bus.attach_many(
                handler_id,
                patterns,
                self.handler(handler_id, action),
                handler_id,
                on_failure="keep" if action == "fail and stay" else "detach",
            ),
            lambda: self.naive.attach(handler_id, patterns, action),
        )
        if attachment is not None:
            self.attachments.append((attachment, self.naive.handlers[-1]))

    @rule(handler_id=ids)
    def detach(self, handler_id):
        self.both(lambda: self.bus.detach(handler_id), lambda: self.naive.detach(handler_id))

    @precondition(lambda self: self.attachments)
    @rule(data=st.data())
    def detach_by_attachment(self, data):
        attachment, handler = data.draw(st.sampled_from(self.attachments))
        attachment.detach()
        self.naive.handlers = [h for h in self.naive.handlers if h is not handler]

    @rule(event=names)
    def execute(self, event):
        expected = self.naive.execute(event)
        self.called.clear()
        self.bus.execute(event, {})
        heard = [call for call in self.called if call[1] == event]
        assert heard == expected

    @rule(event=names)
    def enabled(self, event):
        expected = any(naive_match(p, event) for h in self.naive.handlers for p in h[1])
        assert self.bus.enabled(event) is expected

    @invariant()
    def the_same_handlers_are_listed_in_the_same_order(self):
        listed = [(info.id, info.event) for info in self.bus.list_handlers()]
        assert listed == [(h[0], p) for h in self.naive.handlers for p in dict.fromkeys(h[1])]

    @invariant()
    def attachments_know_whether_they_are_attached(self):
        for attachment, handler in self.attachments:
            assert attachment.active is any(h is handler for h in self.naive.handlers)


TestBusAgainstNaiveModel = BusAgainstNaiveModel.TestCase


def test_more_names_than_are_remembered_are_still_right(bus, recorder):
    bus.attach("h", ("even", "*"), recorder)
    count = 2 * MAX_RESOLVED + 10
    for number in range(count):
        bus.execute(("odd" if number % 2 else "even", str(number)), {"n": number})
        bus.execute(("even", "first"), {"n": -1})
    assert [e.measurements["n"] for e in recorder] == [
        n for number in range(0, count, 2) for n in (number, -1, -1)
    ]


def test_what_is_remembered_is_bounded(bus):
    bus.attach("h", ALL, lambda *_: None)
    for number in range(3 * MAX_RESOLVED):
        bus.execute((str(number),), {})
        assert len(bus._table.resolved) <= MAX_RESOLVED


def test_span_names_that_are_remembered_are_bounded(bus, recorder):
    for number in range(2 * telemetry.spans.MAX_NAMES):
        bus.span((str(number),))
    assert len(telemetry.spans._names) <= telemetry.spans.MAX_NAMES
    bus.attach("h", ALL, recorder)
    with bus.span(("0",)):
        pass
    assert recorder.names == [("0", "start"), ("0", "stop")]


def test_what_is_remembered_of_spans_is_bounded_and_right(bus, recorder):
    bus.attach("h", ("even", "*", "stop"), recorder)
    for number in range(2 * MAX_RESOLVED + 10):
        with bus.span(("odd" if number % 2 else "even", str(number))):
            pass
        assert len(bus._table.spans) <= MAX_RESOLVED
    assert recorder.names == [
        ("even", str(number), "stop") for number in range(0, 2 * MAX_RESOLVED + 10, 2)
    ]


def test_bad_names_are_not_remembered(bus):
    for bad in ((), ("a", ""), ("a.b",), ("*",)):
        for _ in range(2):
            try:
                bus.execute(bad, {})
            except ValueError:
                continue
            raise AssertionError(bad)
    assert bus._table.resolved == {}


@given(st.lists(names, min_size=1, max_size=10), st.lists(wild, min_size=1, max_size=3))
def test_what_is_remembered_changes_no_answer(events, patterns):
    warm, cold = Registry(), Registry()
    for event in events:
        warm.enabled(event)
    for bus in (warm, cold):
        bus.attach_many("h", patterns, lambda *_: None)
    for event in events * 2:
        assert warm.enabled(event) is cold.enabled(event)


def test_two_threads_that_meet_a_name_at_once_agree(bus, recorder):
    bus.attach("h", ALL, recorder)
    barrier = threading.Barrier(2)

    def emit():
        for number in range(200):
            barrier.wait(60)
            bus.execute((str(number),), {})

    threads = [threading.Thread(target=emit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(recorder.names) == sorted([(str(n),) for n in range(200)] * 2)
