"""What goes over OTLP, decoded with OpenTelemetry's own protocol."""

import os

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import handlers
from telemetry.metrics import counter, last_value

STEP = ("training", "step")
REQUESTS = {
    "/v1/traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    "/v1/logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
    "/v1/metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics"),
}
DEFINED = (
    last_value("training.step.loss", tags=["run_id"]),
    counter("training.step.count", report_as="steps"),
)


@pytest.fixture
def attach(bus, receiver):
    def attach(**options):
        given = {"endpoint": receiver.url, "metrics": DEFINED, "export_interval": 0.05, **options}
        return handlers.attach("opentelemetry", registry=bus, **given)

    return attach


def received(receiver, path, since=0):
    """Each item that came to a path, with the attributes of its resource."""
    message, resources, scopes, items = REQUESTS[path]
    found = []
    for where, headers, body in receiver.requests[since:]:
        if where == path:
            assert headers["content-type"] == "application/x-protobuf"
            for one in getattr(message.FromString(body), resources):
                about = plain(one.resource.attributes)
                found += [(i, about) for s in getattr(one, scopes) for i in getattr(s, items)]
    return found


def plain(attributes):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def test_spans_keep_the_ids_that_they_have_on_the_bus(bus, attach, receiver):
    events = []
    bus.attach("seen", ("**",), lambda *event: events.append(event))
    attachment = attach(service_name="trainer", resource={"team": "a"})
    outside = bus.span(("workflow", "run"), {"workflow": "w"})
    with outside as outer, bus.span(("stage", "run"), {"stage": "s"}) as inner:
        inner.measure(rows=3)
    assert attachment.flush()
    spans = {span.name: (span, about) for span, about in received(receiver, "/v1/traces")}
    (root, about), (child, _) = spans["workflow.run"], spans["stage.run"]
    assert about["service.name"] == "trainer"
    assert about["team"] == "a"
    assert about["process.pid"] == os.getpid()
    assert int.from_bytes(root.span_id) == outer.context.span_id
    assert int.from_bytes(root.trace_id) == outer.context.trace_id
    assert root.parent_span_id == b""
    assert int.from_bytes(child.parent_span_id) == outer.context.span_id
    assert int.from_bytes(child.span_id) == inner.context.span_id
    assert child.trace_id == root.trace_id
    assert plain(child.attributes) == {"stage": "s", "rows": 3}
    ((_, measurements, _, _),) = [e for e in events if e[0] == ("stage", "run", "stop")]
    assert child.end_time_unix_nano - child.start_time_unix_nano == measurements["duration"]


def test_a_span_read_from_json_finds_its_parent_of_another_process(bus, attach, receiver):
    attachment = attach()
    there = {"span_id": f"{5:016x}", "parent_id": f"{4:016x}", "trace_id": f"{3:016x}"}
    bus.execute(("stage", "run", "stop"), {"duration": 7}, {"telemetry_span_context": there})
    assert attachment.flush()
    ((span, _),) = received(receiver, "/v1/traces")
    ids = (span.span_id, span.parent_span_id, span.trace_id)
    assert tuple(map(int.from_bytes, ids)) == (5, 4, 3)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 7


def test_metrics_and_log_records_arrive_with_their_values(bus, attach, receiver):
    attachment = attach()
    for loss in (2.5, 0.5):
        bus.execute(STEP, {"loss": loss}, {"run_id": "a"})
    bus.execute(("training", "checkpoint"), {"size_bytes": 3}, {"path": "a.pt"})
    assert attachment.flush()
    ((log, _),) = received(receiver, "/v1/logs")
    assert log.event_name == "training.checkpoint"
    assert plain(log.attributes) == {"size_bytes": 3, "path": "a.pt"}
    latest = {metric.name: metric for metric, _ in received(receiver, "/v1/metrics")}
    (point,) = latest["training.loss"].gauge.data_points
    assert (point.as_double, plain(point.attributes)) == (0.5, {"run_id": "a"})
    (point,) = latest["steps"].sum.data_points
    assert point.as_double == 2


def test_it_is_sent_now_and_then_without_being_asked(bus, attach, receiver, wait_until):
    attach(export_interval=0.2)
    with bus.span(("stage", "run")):
        pass
    wait_until(lambda: received(receiver, "/v1/traces"))


def test_all_spans_arrive_once_and_in_bounded_requests(bus, attach, receiver):
    attachment = attach(export_interval=60.0, signals=["traces"])
    for number in range(1500):
        with bus.span(("stage", "run"), {"number": number}):
            pass
    attachment.detach()
    spans = [plain(span.attributes)["number"] for span, _ in received(receiver, "/v1/traces")]
    assert spans == list(range(1500))
    assert (
        max(
            len(ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans)
            for _, _, body in receiver.requests
        )
        <= 512
    )


def test_variables_of_opentelemetry_count_where_nothing_is_given(bus, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{receiver.url}/base/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{receiver.url}/elsewhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hunter22")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    attachment = handlers.attach("opentelemetry", registry=bus, metrics=DEFINED)
    with bus.span(("stage", "run")):
        bus.execute(("my", "note"), {})
    assert attachment.flush()
    by_path = {path: (headers, body) for path, headers, body in receiver.requests}
    assert set(by_path) == {"/elsewhere", "/base/v1/logs"}
    headers, body = by_path["/elsewhere"]
    assert headers["x-key"] == "hunter22"
    (one,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert plain(one.resource.attributes)["service.name"] == "named"


def test_a_forked_child_sends_its_own_and_nothing_of_its_parent(bus, attach, receiver, in_child):
    attachment = attach(export_interval=60.0)
    with bus.span(("stage", "sent")):
        pass
    assert attachment.flush()
    with bus.span(("stage", "waiting")):  # ended, and not sent yet when the child begins
        pass
    both = bus.start_span(("stage", "both"))
    for _ in range(3):
        bus.execute(STEP, {"loss": 1.0})
    before = len(receiver.requests)

    def child():
        lost = []
        bus.attach("drops", ("telemetry", "handler", "overflow"), lambda *a: lost.append(a[1:3]))
        both.stop()
        with bus.span(("stage", "child")):
            bus.execute(STEP, {"loss": 9.0})
        attachment.detach()
        ((measurements, metadata),) = lost
        assert (measurements["dropped"], metadata["policy"]) == (1, "inherited")

    in_child(child)
    spans = received(receiver, "/v1/traces", since=before)
    assert [span.name for span, _ in spans] == ["stage.child"]
    assert spans[0][1]["process.pid"] != os.getpid()
    steps = [m for m, _ in received(receiver, "/v1/metrics", since=before) if m.name == "steps"]
    assert [point.as_double for m in steps for point in m.sum.data_points] == [1]
    both.stop()
    attachment.detach()
    names = [span.name for span, _ in received(receiver, "/v1/traces")]
    assert sorted(names) == ["stage.both", "stage.child", "stage.sent", "stage.waiting"]


@pytest.mark.parametrize("system_time", [-1, 2**70, "soon", 0])
def test_a_time_that_cannot_be_costs_no_other_span(bus, attach, receiver, drops, system_time):
    attachment = attach(signals=["traces"], export_interval=60.0)
    context = {"span_id": 7, "parent_id": None, "trace_id": 7}
    metadata = {"telemetry_span_context": context}
    bus.execute(("stage", "run", "start"), {"system_time": system_time}, metadata)
    bus.execute(("stage", "run", "stop"), {"duration": 5}, metadata)
    with bus.span(("stage", "other")):
        pass
    attachment.detach()
    spans = {span.name: span for span, _ in received(receiver, "/v1/traces")}
    assert set(spans) == {"stage.run", "stage.other"}
    run = spans["stage.run"]
    assert run.end_time_unix_nano - run.start_time_unix_nano == 5
    assert drops == []


@pytest.mark.parametrize("time_ns", [-5, 2**80])
def test_an_event_of_a_time_that_cannot_be_is_sent(bus, attach, receiver, drops, time_ns):
    attachment = attach(signals=["traces", "logs"], export_interval=60.0)
    there = {"span_id": 5, "parent_id": None, "trace_id": 3}
    with handlers.clock.at_time(time_ns):
        bus.execute(("my", "note"), {})
        bus.execute(("stage", "run", "stop"), {"duration": 7}, {"telemetry_span_context": there})
    attachment.detach()
    ((log, _),) = received(receiver, "/v1/logs")
    ((span, _),) = received(receiver, "/v1/traces")
    assert log.time_unix_nano in (0, 2**63 - 1)
    assert span.end_time_unix_nano in (0, 2**63 - 1)
    assert drops == []


def test_a_signal_that_is_down_does_not_hold_up_the_others(
    bus, attach, receiver, free_port, caplog, monkeypatch, wait_until
):
    dead = f"http://127.0.0.1:{free_port}/v1/metrics"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", dead)
    attachment = attach(endpoint=None, flush_timeout=0.5)
    for number in range(3):
        bus.execute(STEP, {"loss": 1.0})
        with bus.span(("stage", f"s{number}")):
            pass
        bus.execute(("my", "note"), {})
        assert attachment.flush(1.0) is False  # the metrics wait
        for path in ("/v1/traces", "/v1/logs"):
            wait_until(lambda path=path, n=number: len(received(receiver, path)) == n + 1)
    wait_until(lambda: "cannot reach" in caplog.text)
    said = [r.getMessage() for r in caplog.records if "cannot reach" in r.getMessage()]
    assert len(said) == 1
    assert dead in said[0]


def test_of_a_signal_that_is_down_the_oldest_is_lost_while_another_works(
    bus, attach, receiver, free_port, drops, monkeypatch, wait_until, ended
):
    monkeypatch.setattr("handlers.otlp.MOST", 20)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    dead = f"http://127.0.0.1:{free_port}/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", dead)
    attachment = attach(endpoint=None, flush_timeout=0.5, logs=[("my", "note")])
    bus.execute(("my", "note"), {})
    attachment.flush(1.0)
    for _ in range(100):
        with bus.span(("stage", "run")):
            pass
    attachment.flush(1.0)
    bus.execute(("my", "note"), {})
    attachment.flush(1.0)
    wait_until(lambda: len(received(receiver, "/v1/logs")) == 2)
    wait_until(lambda: sum(count for count, _ in drops) == 80)
    attachment.detach()
    ended(attachment)
    assert sum(count for count, _ in drops) == 100


def test_while_none_works_events_wait_in_the_queue(
    bus, attach, receiver, drops, monkeypatch, wait_until
):
    monkeypatch.setattr("handlers.otlp.MOST", 20)
    receiver.always = (503, {})
    attachment = attach(signals=["traces"])
    for number in range(600):
        with bus.span(("stage", "run"), {"number": number}):
            pass
    wait_until(lambda: receiver.requests)
    receiver.always = None
    assert attachment.flush(60)
    spans = [plain(span.attributes)["number"] for span, _ in received(receiver, "/v1/traces")]
    assert sorted(set(spans)) == list(range(600))
    assert drops == []


def test_at_the_end_an_endpoint_is_not_asked_before_the_time_that_it_wants(
    bus, attach, receiver, drops, wait_until, ended
):
    receiver.always = (429, {"Retry-After": "600"})
    attachment = attach(signals=["traces"], flush_timeout=60.0)
    with bus.span(("stage", "run")):
        pass
    wait_until(lambda: receiver.requests)
    attachment.detach()  # which does not wait for a minute either
    ended(attachment)
    assert len(receiver.requests) == 1
    assert sum(count for count, _ in drops) == 1
