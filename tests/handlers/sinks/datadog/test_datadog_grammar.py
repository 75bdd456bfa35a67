"""Whatever is emitted, each datagram is as DogStatsD's grammar has it, and no value is lost."""

import json
import math
import socket
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import handlers
from handlers.datadog import DatadogMetrics
from telemetry import Registry
from telemetry.metrics import counter, distribution, last_value, summary

HOSTILE = st.sampled_from(
    ["", "a:1|c", "x|g", "#", "@", "|@0.1", "\n", "a\nb:1|c", ",", "signal.", "signal.x", "_sc|a|0",
     "_e{1,1}:a|b", "m:", "é", "\ud800", "\x00", "9", "...", "/", "a/b", "x" * 300, "ü" * 300, "²",
     "İ", "T1", "|#a:b", "\u2028", "{event}", "_", ":", "run id"]
)  # fmt: skip
TEXT = HOSTILE | st.text(max_size=12)
VALUE = (
    st.floats()
    | st.integers()
    | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 10**400, True, None, "1|c", [1.0]])
)
SEGMENT = TEXT.map(lambda text: text.replace(".", "-").replace("*", "-") or "x")
EVENT = st.lists(SEGMENT, min_size=1, max_size=3).map(tuple) | st.sampled_from(
    [("training", "step"), ("rl", "step"), ("alert", "raised"), ("alert", "cleared"),
     ("workflow", "run", "exception"), ("training", "checkpoint"), ("model", "registered"),
     ("training", "eval"), ("smartclip", "clip", "group"), ("custom_loss", "stop")]
)  # fmt: skip
KEY = st.sampled_from(
    ["run_id", "user_id", "rule", "severity", "message", "metric", "split", "key", "workflow",
     "error", "reason", "name", "model_id", "checkpoint_name", "mine"]
)  # fmt: skip


class Hostile:
    """What a program may put into the metadata, for lack of care."""

    def _refuse(self, *_):
        raise RuntimeError("no")

    __str__ = __repr__ = __bool__ = __len__ = _refuse


OBJECT = st.sampled_from(
    [Hostile, lambda: ("a", "b"), tuple, lambda: [Hostile()], lambda: 7, bool, lambda: None, bytes]
).map(lambda make: make())
EMITTED = st.tuples(
    EVENT,
    st.dictionaries(TEXT, VALUE, max_size=3),
    st.dictionaries(KEY, TEXT | OBJECT, max_size=4),
)
KINDS = ("gauge", "histogram", "distribution", "timing", "increment", "decrement")
CALL = (
    st.tuples(st.sampled_from(KINDS), TEXT, VALUE.filter(lambda v: not isinstance(v, str)),
              st.lists(TEXT, max_size=3))
    | st.tuples(st.just("set"), TEXT, TEXT, st.lists(TEXT, max_size=3))
    | st.tuples(st.just("event"), TEXT, TEXT | st.text(max_size=3000), st.lists(TEXT, max_size=40))
    | st.tuples(st.just("service_check"), TEXT, TEXT, st.lists(TEXT, max_size=3))
)  # fmt: skip

METRICS = [
    last_value("**.*", tags=["run_id", "user_id", "mine", "message"]),
    counter("**.n", report_as="{event}.{name}.n", tags=["mine"]),
    summary("training.step.loss"),
    distribution("training.step.loss"),
]


@pytest.fixture(scope="module")
def receiving():
    """A socket that stays, because an example of hypothesis gets no fixture of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        bound.setblocking(False)  # noqa: FBT003 -- sockets have it so
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture(scope="module")
def bus(receiving):
    """A bus with the handler behind no worker, so that what is emitted is sent at once."""
    registry = Registry()
    attachment = handlers.attach(
        "datadog",
        registry=registry,
        background=False,
        events=[("**",)],
        metrics=METRICS,
        namespace="signal",
        tags=["env:test"],
        host="127.0.0.1",
        port=receiving.getsockname()[1],
        dd_events=[("alert", "*"), ("workflow", "**"), ("training", "*"), ("model", "**")],
    )
    with attachment:
        yield registry


@pytest.fixture(scope="module")
def metrics(receiving):
    with DatadogMetrics(
        namespace="signal", host="127.0.0.1", port=receiving.getsockname()[1]
    ) as client:
        yield client


@pytest.fixture
def received(receiving, grammar):
    """The lines that have come, each checked against the grammar."""

    def read():
        lines = []
        while True:
            try:
                datagram = receiving.recv(65536)
            except BlockingIOError:
                return lines
            assert len(datagram) <= 1432
            lines += grammar(datagram)

    return read


def numbers(value):
    """What is sent of a measurement."""
    if not isinstance(value, int | float):
        return []
    try:
        return [float(value)] if math.isfinite(float(value)) else []
    except OverflowError:
        return []


def expected_values(emitted):
    """What arrives once, by hand: each number that is finite, under whatever name."""
    return Counter(
        number
        for event, measurements, _ in emitted
        for measurement, value in measurements.items()
        for number in numbers(value)
        if event[-1] != "exception" and measurement not in ("monotonic_time", "system_time")
    )


@settings(
    max_examples=400,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(emitted=st.lists(EMITTED, min_size=20, max_size=20))
def test_8000_events_of_the_bus_arrive_as_the_grammar_has_it(bus, received, emitted):
    for event, measurements, metadata in emitted:
        bus.execute(event, measurements, metadata)

    own = "signal.telemetry.handler.overflow."  # of what is no number
    lines = [line for line in received() if not line[0].startswith(own)]

    # A duration, by its name, and the training loss, by its definition, are histograms.
    once = Counter(line.values[0] for line in lines if getattr(line, "kind", "") in ("g", "h"))
    assert once == expected_values(emitted)
    counts = [line for line in lines if getattr(line, "kind", "") == "c"]
    assert len(counts) == len(emitted)
    assert all(line.name.startswith("signal.") for line in lines if hasattr(line, "kind"))
    assert all("env:test" in line.tags for line in lines)


@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(calls=st.lists(CALL, min_size=20, max_size=20))
def test_2000_calls_of_the_client_arrive_as_the_grammar_has_it(metrics, received, calls):
    say(metrics, calls)
    assert metrics.flush(60)

    lines = received()

    sent = Counter(type(line).__name__ for line in lines)
    assert sent["Event"] == sum(method == "event" for method, *_ in calls)
    assert sent["Check"] == sum(method == "service_check" for method, *_ in calls)
    finite = [len(numbers(value)) for method, _, value, _ in calls if method in KINDS]
    assert sent["Metric"] == sum(finite) + sum(method == "set" for method, *_ in calls)


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(calls=st.lists(CALL, min_size=20, max_size=20))
def test_500_calls_arrive_over_the_api(receiver, calls):
    receiver.requests.clear()
    with DatadogMetrics(api_key="0123456789abcdef", api_host=receiver.url) as client:
        say(client, calls)
        assert client.flush(60)

    found = [(path, json.loads(body)) for path, _, body in receiver.requests]

    events = [body for path, body in found if path == "/api/v1/events"]
    checks = [body for path, body in found if path == "/api/v1/check_run"]
    assert len(events) == sum(method == "event" for method, *_ in calls)
    assert sum(map(len, checks)) == sum(method == "service_check" for method, *_ in calls)
    spread = [one for path, body in found if path == "/api/v1/distribution_points"
              for one in body["series"]]  # fmt: skip
    values = Counter(value for one in spread for value in one["points"][0][1])
    assert values == Counter(
        number
        for method, _, value, _ in calls
        if method == "distribution"
        for number in numbers(value)
    )


def say(metrics, calls):
    for method, name, value, tags in calls:
        if method == "service_check":
            metrics.service_check(name, "WARNING", value, tags)
        else:
            getattr(metrics, method)(name, value, tags=tags)


@pytest.mark.parametrize(
    "datagram",
    [b"", b"a:nan|g", b"a:inf|g", b"a:1|x", b"a b:1|g", b"a:1", b"a:1|g|@0.5", b"a:1|c|@2", b"a:|g",
     b"a:1|g|#", b"a:1|g|#x,,y", b"a:1|g|#X", b"a:1|g|#x|#y", b"a:1|h|T1", b"1a:1|g", b"a:1|g|z:1",
     b"_e{2,1}:a|b|d:1", b"_e{1,0}:a||d:1", b"_e{1,1}:a|b|d:1|t:bad", b"_sc|a|4|d:1",
     b"_sc|a|0|m:x|d:1", b"_sc|a|0|d:1|m:x m: y", b"a:1|g\n\n", b"a:1:2|s", b"a:+1|g"]
)  # fmt: skip
def test_the_parser_is_strict(grammar, datagram):
    with pytest.raises((AssertionError, ValueError, KeyError)):
        grammar(datagram)


def test_the_parser_takes_the_published_examples(grammar):
    published = [
        b"page.views:1|c", b"fuel.level:0.5|g", b"song.length:240|h|@0.5", b"users.uniques:1234|s",
        b"users.online:1|c|#country:china", b"users.online:1|c|@0.5|#country:china",
        b"page.views:1:2:32|d", b"page.views:15|c|#env:dev|T1656581400",
        b"page.views:1:2:3|d|#env:dev|c:83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0c918c8d93df19a9d",
        b"_e{21,36}:An exception occurred|Cannot parse CSV file from 10.0.0.17|d:1|t:warning|#e:x",
        b"_sc|redis.can_connect|2|d:1|#env:dev|m:Redis connection timed out after 10s",
    ]  # fmt: skip
    assert len(grammar(b"\n".join(published))) == len(published)
