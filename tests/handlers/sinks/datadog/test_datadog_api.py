"""The HTTP API: read back from VictoriaMetrics, which takes it, and from a server of the test's."""

import json
import math
import time
import urllib.parse
import urllib.request

import pytest

from handlers.clock import at_time
from telemetry.metrics import counter, distribution, last_value, summary

KEY = "0123456789abcdef0123456789abcdef"
METRICS = [
    last_value("my.event.x", report_as="gauge", tags=["run_id"]),
    counter("my.event.n", report_as="count", tags=["run_id"]),
    summary("my.event.x", report_as="hist", tags=["run_id"]),
]
EVENT = ("my", "event")
LATER = 2_000_000_000
"""In an interval that does not end in a test: it is sent by a flush, and by nothing before."""
RAISED = ("alert", "raised")


@pytest.fixture
def victoria(program, free_port, tmp_path, answers):
    """The base URL of a VictoriaMetrics."""
    url = f"http://127.0.0.1:{free_port}"
    program(
        "victoria-metrics",
        f"-httpListenAddr=127.0.0.1:{free_port}",
        f"-storageDataPath={tmp_path / 'data'}",
        "-retentionPeriod=10y",
        ready=lambda: answers(f"{url}/health"),
    )
    return url


def exported(url):
    """The values of each series, by name and tags."""
    match = urllib.parse.quote('{__name__!=""}')
    where = f"{url}/api/v1/export?match[]={match}"
    with urllib.request.urlopen(where, timeout=60) as answer:  # noqa: S310 -- it is http
        series = [json.loads(line) for line in answer.read().splitlines()]
    return {each["metric"].pop("__name__"): each for each in series}


def test_points_arrive_with_their_values_tags_and_times(bus, attach, victoria, wait_until, drops):
    metrics = [last_value("alert.raised.*", drop=lambda metadata: True), *METRICS]
    handler = attach(
        api_key=KEY,
        api_host=f"{victoria}/datadog",
        namespace="signal",
        tags=["env:prod"],
        metrics=metrics,
    )
    start = int(time.time()) // 10 * 10 - 100
    for second, value in enumerate((1.0, 4.0, -2.5)):
        with at_time((start + second) * 10**9):
            bus.execute(EVENT, {"x": value}, {"run_id": "a"})
    bus.execute(RAISED, {"value": 1}, {"rule": "r", "metric": "rl.step.entropy", "message": "low"})
    assert handler.flush()
    expected = {
        "signal.gauge": [-2.5],
        "signal.count": [3],
        "signal.hist.count": [3],
        "signal.hist.avg": [pytest.approx(2.5 / 3)],
        "signal.hist.max": [4],
        "signal.hist.median": [1],
        "signal.hist.95percentile": [4],
        "signal.hist.99percentile": [4],
    }
    wait_until(lambda: expected.keys() <= exported(victoria).keys())

    found = exported(victoria)

    values = {name: each["values"] for name, each in found.items() if name.startswith("signal")}
    assert values == expected
    assert {(count, metadata["policy"]) for count, metadata in drops} == {
        (1, "refused")  # it takes a check and forgets it, and takes no events
    }
    gauge = found["signal.gauge"]
    assert gauge["timestamps"] == [start * 1000]
    assert {gauge["metric"]["env"], gauge["metric"]["run_id"]} == {"prod", "a"}


def bodies(receiver, path):
    return [json.loads(body) for where, _, body in receiver.requests if where == path]


@pytest.fixture
def attach_api(attach, receiver):
    def attach_api(**options):
        return attach(**{"api_key": KEY, "api_host": receiver.url, "metrics": [], **options})

    return attach_api


def test_an_event_is_posted_with_the_key_in_its_header(bus, attach_api, receiver):
    handler = attach_api(app_key="fedcba9876543210", tags=["env:prod"])
    message = "KL divergence\n0.2 exceeds 0.1"
    bus.execute(RAISED, {"value": 1}, {"rule": "kl", "severity": "critical", "message": message})
    assert handler.flush()

    (path, headers, body), (_, _, checks) = receiver.requests

    assert path == "/api/v1/events"
    assert (headers["DD-API-KEY"], headers["DD-APPLICATION-KEY"]) == (KEY, "fedcba9876543210")
    event = json.loads(body)
    assert abs(event.pop("date_happened") - time.time()) < 60
    assert event.pop("host")
    assert event == {
        "title": "Alert: kl",
        "text": message,
        "alert_type": "error",
        "aggregation_key": "alert.kl",
        "tags": ["rule:kl", "severity:critical", "env:prod"],
    }
    (check,) = json.loads(checks)
    assert (check["check"], check["status"], check["message"]) == ("alert.kl", 2, message)


def test_an_interval_that_is_sent_early_is_sent_again_with_all_of_it(bus, attach_api, receiver):
    handler = attach_api(metrics=[counter("my.event.n", report_as="count")])
    with at_time((LATER + 5) * 10**9):
        for expected in (1, 3):
            for _ in range(expected - (expected > 1)):
                bus.execute(EVENT, {}, {})
            assert handler.flush()

    points = [body["series"][0]["points"] for body in bodies(receiver, "/api/v1/series")]

    assert points == [[[LATER, 1]], [[LATER, 3]]]


def test_intervals_that_have_ended_are_sent_without_a_flush(bus, attach_api, receiver, wait_until):
    attach_api(metrics=[last_value("my.event.x", report_as="gauge")])
    start = int(time.time()) // 10 * 10 - 60
    for number in range(4):
        with at_time((start + 10 * number) * 10**9):
            bus.execute(EVENT, {"x": number}, {})
    wait_until(lambda: sum(len(b["series"]) for b in bodies(receiver, "/api/v1/series")) == 4)

    series = [one for body in bodies(receiver, "/api/v1/series") for one in body["series"]]

    assert [one["points"][0] for one in series] == [[start + 10 * n, n] for n in range(4)]
    assert {(one["type"], one["interval"]) for one in series} == {("gauge", 10)}


def test_distributions_are_posted_with_all_their_values(bus, attach_api, receiver):
    handler = attach_api(metrics=[distribution("my.event.x", report_as="dist")])
    with at_time(LATER * 10**9):
        for value in (1, 2.5, math.nan, -3):
            bus.execute(EVENT, {"x": value}, {})
        assert handler.flush()
        bus.execute(EVENT, {"x": 7}, {})
    assert handler.flush()
    assert handler.flush()

    sent = [body["series"] for body in bodies(receiver, "/api/v1/distribution_points")]

    assert [[(one["metric"], one["points"]) for one in series] for series in sent] == [
        [("dist", [[LATER, [1, 2.5, -3]]])],
        [("dist", [[LATER, [7]]])],
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(bus, attach_api, receiver, caplog, status):
    receiver.answers = [(status, {"X-RateLimit-Reset": "0.1"}), (status, {})]
    handler = attach_api(dd_events=[EVENT])
    bus.execute(EVENT, {}, {})
    assert handler.flush(60)

    assert len(bodies(receiver, "/api/v1/events")) == 3
    assert caplog.text.count("cannot reach http://127.0.0.1") == 1
    assert handler.active


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("source", ["the option api_key", "the variable DATADOG_API_KEY"])
def test_a_wrong_key_is_named_by_where_it_comes_from_and_never_shown(
    bus, attach_api, receiver, monkeypatch, caplog, ended, status, source
):
    failures = []
    failure = ("telemetry", "handler", "failure")
    bus.attach("failures", failure, lambda e, m, metadata, c: failures.append(metadata))
    receiver.always = (status, {})
    if "variable" in source:
        monkeypatch.setenv("DATADOG_API_KEY", KEY)
    handler = attach_api(dd_events=[EVENT], **({"api_key": None} if "variable" in source else {}))
    bus.execute(EVENT, {}, {})
    ended(handler)

    assert not handler.active
    (metadata,) = failures
    assert type(metadata["reason"]).__name__ == "CredentialsError"
    assert f"it does not take the API key, which came from {source}" in str(metadata["reason"])
    assert "DATADOG_API_KEY" in str(metadata["reason"])
    assert metadata["reason"].__context__ is None
    assert KEY not in caplog.text + repr(failures) + repr(handler.handler)


def test_what_is_refused_for_good_detaches_the_handler(bus, attach_api, receiver, caplog, ended):
    receiver.always = (404, {})
    handler = attach_api(dd_events=[EVENT])
    bus.execute(EVENT, {}, {})
    ended(handler)

    assert not handler.active
    assert "answered HTTP 404 Not Found, which no further attempt would change" in caplog.text
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_one_that_is_refused_is_counted_and_the_next_is_sent(
    bus, attach_api, receiver, drops, status
):
    receiver.answers = [(status, {})]
    handler = attach_api(dd_events=[EVENT])
    for number in range(2):
        bus.execute(EVENT, {"x": number}, {})
        assert handler.flush(60)
    handler.detach()

    assert [body["text"] for body in bodies(receiver, "/api/v1/events")] == ["x: 0", "x: 1"]
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(1, "refused")]


def test_an_answer_that_breaks_off_is_no_reason_to_send_twice(bus, attach_api, receiver):
    receiver.breaks = True
    handler = attach_api(dd_events=[EVENT])
    bus.execute(EVENT, {}, {})
    assert handler.flush(60)

    assert len(bodies(receiver, "/api/v1/events")) == 1


def test_an_api_that_hangs_holds_nobody(bus, attach_api, receiver):
    receiver.hangs = True
    handler = attach_api(metrics=METRICS, flush_timeout=0.5)
    for _ in range(10):
        bus.execute(EVENT, {"x": 1}, {})
    assert not handler.flush(0.3)
    began = time.monotonic()
    handler.detach()
    assert time.monotonic() - began < 30
    receiver.released.set()


def test_points_that_are_given_up_at_the_end_are_counted(bus, attach_api, free_port, drops, ended):
    nobody = f"http://127.0.0.1:{free_port}"
    with attach_api(
        metrics=[last_value("my.event.x")], api_host=nobody, flush_timeout=0.3
    ) as handler:
        for _ in range(7):
            bus.execute(EVENT, {"x": 1}, {})
        handler.flush(0.2)
    ended(handler)
    assert sum(count for count, _ in drops) == 7


def test_a_child_sends_its_own_points_only(bus, attach_api, receiver, in_child):
    handler = attach_api(metrics=[counter("my.event.n", report_as="count")])
    with at_time(LATER * 10**9):
        bus.execute(EVENT, {}, {})
        assert handler.flush()
        bus.execute(EVENT, {}, {})

        def child():
            for _ in range(5):
                bus.execute(EVENT, {}, {})
            assert handler.flush(60)

        in_child(child)
    assert handler.flush(60)

    counts = [body["series"][0]["points"][0][1] for body in bodies(receiver, "/api/v1/series")]
    assert sorted(counts) == [1, 2, 5]  # the parent's, the same and one more, and the child's


def test_two_handlers_keep_their_keys_apart(bus, attach_api, receiver):
    first = attach_api(id="first", dd_events=[("first", "event")])
    second = attach_api(id="second", api_key="another-key-of-another-org", dd_events=[EVENT])
    bus.execute(("first", "event"), {}, {})
    bus.execute(EVENT, {}, {})
    assert first.flush()
    assert second.flush()

    keys = {json.loads(body)["title"]: headers["DD-API-KEY"] for _, headers, body in
            receiver.requests}  # fmt: skip
    assert keys == {"first.event": KEY, "my.event": "another-key-of-another-org"}
