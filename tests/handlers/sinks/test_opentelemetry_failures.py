"""OTLP endpoints that are down, slow, wrong or choosy, and options that cannot be right."""

import base64
import http.server
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

import handlers
from handlers.otel_attributes import CONTEXT
from handlers.patience import PATIENCE, Patience
from handlers.records import TimedEvent
from telemetry.metrics import counter

STEP = ("training", "step")


@pytest.fixture
def attach(bus):
    def attach(endpoint, **options):
        given = {"signals": ["traces"], "export_interval": 0.05, **options}
        return handlers.attach("opentelemetry", registry=bus, endpoint=endpoint, **given)

    return attach


@pytest.fixture
def failures(bus):
    found = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *args: found.append(args[2]))
    return found


@pytest.fixture
def run_spans(bus):
    def run_spans(count):
        for number in range(count):
            with bus.span(("stage", "run"), {"number": number}):
                pass

    return run_spans


def numbers(requests):
    """Which spans arrived."""
    found = []
    for path, _, body in requests:
        if path == "/v1/traces":
            message = ExportTraceServiceRequest.FromString(body)
            spans = [s for r in message.resource_spans for one in r.scope_spans for s in one.spans]
            found += [s.attributes[0].value.int_value for s in spans]
    return found


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again_and_announced_once(attach, receiver, run_spans, status, caplog):
    receiver.answers = [(status, {}), (status, {"Retry-After": "0"})]
    attachment = attach(receiver.url)
    run_spans(20)
    assert attachment.flush(60)
    assert numbers(receiver.requests[2:]) == list(range(20))
    said = [r.getMessage() for r in caplog.records if r.name == "telemetry"]
    assert len([text for text in said if "cannot reach" in text]) == 1
    assert len([text for text in said if "again" in text]) == 1
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
    assert attachment.active


def test_an_endpoint_that_is_down_is_announced_once_and_what_is_lost_is_counted(
    bus, attach, free_port, run_spans, caplog, drops, wait_until, ended
):
    attachment = attach(f"http://127.0.0.1:{free_port}", queue_size=20, flush_timeout=0.5)
    run_spans(5)
    wait_until(lambda: "cannot reach" in caplog.text)
    for _ in range(100):
        bus.execute(("my", "note"), {})
    attachment.detach()
    ended(attachment)
    assert len([r for r in caplog.records if "cannot reach" in r.getMessage()]) == 1
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
    assert sum(count for count, _ in drops) > 0


def test_every_event_is_sent_or_counted_when_the_end_comes_while_it_is_down(
    bus, attach, receiver, run_spans, drops, wait_until, ended
):
    attachment = attach(receiver.url, flush_timeout=0.3)
    run_spans(10)
    assert attachment.flush(60)
    assert len(numbers(receiver.requests)) == 10
    receiver.always = (503, {})
    before = len(receiver.requests)
    stops = ("stage", "run", "stop")
    bus.attach("only-stops", stops, lambda *args: None)
    for number in range(7):
        context = {"span_id": number + 1, "parent_id": None, "trace_id": number + 1}
        bus.execute(stops, {"duration": 5}, {"telemetry_span_context": context})
    wait_until(lambda: len(receiver.requests) > before)
    attachment.detach()
    ended(attachment)
    assert sum(count for count, _ in drops) == 7


def test_what_a_batch_added_is_left_to_who_counts_its_events(attach, receiver, drops):
    def ends(numbers):
        contexts = [{"span_id": n + 1, "parent_id": None, "trace_id": n + 1} for n in numbers]
        return [
            TimedEvent(
                n, ("stage", "run", "stop"), {"duration": 0}, {"number": n, CONTEXT: context}
            )
            for n, context in zip(numbers, contexts, strict=True)
        ]

    receiver.answers = [(200, {}), *[(503, {})] * 9]
    attachment = attach(receiver.url, export_interval=60.0)
    patience = Patience()
    token = PATIENCE.set(patience)
    attachment.handler.deliver_many(ends(range(500)))
    patience.closing.set()
    patience.over.set()  # nobody waits for the worker any more
    attachment.handler.deliver_many(ends(range(500, 600)))  # the 513th and further ones fail
    PATIENCE.reset(token)
    assert numbers(receiver.requests[:1]) == list(range(512))
    assert not attachment.handler._outlet.pending
    attachment.detach()
    assert drops == []


@pytest.mark.parametrize("trouble", ["hangs", "breaks"])
def test_an_endpoint_that_hangs_or_breaks_off_does_not_hold_the_end(
    attach, receiver, run_spans, wait_until, trouble
):
    setattr(receiver, trouble, True)
    attachment = attach(receiver.url, timeout=0.3, flush_timeout=0.5)
    run_spans(1)
    wait_until(lambda: receiver.requests)
    attachment.detach()
    receiver.released.set()
    assert not attachment.active


def test_refused_credentials_end_it_and_name_where_they_come_from(
    attach, receiver, run_spans, failures, caplog, ended
):
    receiver.always = (401, {})
    url = receiver.url.replace("http://", "http://user:hunter33@")
    attachment = attach(url, headers={"x-key": "hunter22"})
    run_spans(1)
    ended(attachment)
    (metadata,) = failures
    assert isinstance(metadata["reason"], handlers.CredentialsError)
    host = receiver.url.removeprefix("http://")
    assert str(metadata["reason"]) == (
        f"Handler 'opentelemetry': http://***@{host}/v1/traces answered 401 Unauthorized. Give "
        "what it accepts: headers={'authorization': ...}, or the variable "
        "OTEL_EXPORTER_OTLP_HEADERS."
    )
    assert not attachment.active
    _, headers, _ = receiver.requests[0]
    assert headers["x-key"] == "hunter22"
    assert base64.b64decode(headers["Authorization"].split()[1]) == b"user:hunter33"
    for secret in ("hunter22", "hunter33"):
        assert secret not in caplog.text
        assert secret not in repr(metadata)
        assert secret not in repr(attachment.handler._renew)


def test_an_endpoint_without_a_signal_is_an_error_that_says_how_to_leave_it_out(
    attach, receiver, run_spans, failures, wait_until
):
    receiver.always = (404, {})
    attach(receiver.url)
    run_spans(1)
    (metadata,) = wait_until(lambda: failures)
    assert str(metadata["reason"]) == (
        f"Handler 'opentelemetry': {receiver.url}/v1/traces answered 404 Not Found. If it takes "
        "no traces, leave them out: signals=[...] with those that it takes."
    )


@pytest.mark.parametrize("status", [302, 307, 405])
def test_an_address_that_is_no_endpoint_is_an_error_that_says_so(
    attach, receiver, run_spans, failures, ended, status
):
    receiver.always = (status, {"Location": "/elsewhere"})
    attachment = attach(receiver.url)
    run_spans(1)
    ended(attachment)
    (metadata,) = failures
    assert str(metadata["reason"]).startswith(
        f"Handler 'opentelemetry': {receiver.url}/v1/traces answered {status} "
    )
    assert str(metadata["reason"]).endswith(
        ". That is no OTLP endpoint: check the address in the option endpoint, or in the variable "
        "OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    assert len(receiver.requests) == 1


def test_what_a_flush_is_refused_is_a_failure_of_the_handler(attach, receiver, run_spans, failures):
    receiver.always = (401, {})
    attachment = attach(receiver.url, export_interval=60.0)
    run_spans(1)
    with pytest.raises(handlers.CredentialsError):
        attachment.flush()
    (metadata,) = failures
    assert isinstance(metadata["reason"], handlers.CredentialsError)
    assert not attachment.active


def test_a_batch_that_is_refused_is_counted_and_the_next_one_is_sent(
    attach, receiver, run_spans, drops
):
    receiver.answers = [(400, {})]
    attachment = attach(receiver.url, export_interval=3600.0)
    run_spans(3)
    attachment.flush()
    run_spans(2)
    attachment.detach()
    assert numbers(receiver.requests[1:]) == [0, 1]
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(3, "refused")]


@pytest.fixture
def answering():
    """Start a server that answers each request with what a function makes of its headers."""
    servers = []

    def start(status, content_type, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                answer = body(self.headers)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                """Nothing on the test's standard error."""

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_an_endpoint_takes_in_part_is_counted(attach, answering, run_spans, drops):
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    message = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    url = answering(200, "application/x-protobuf", lambda headers: message)
    attachment = attach(url, export_interval=3600.0)
    run_spans(3)
    attachment.detach()
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(2, "refused")]


def test_a_secret_that_an_endpoint_repeats_is_not_shown(
    attach, answering, run_spans, failures, wait_until, monkeypatch, caplog
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=hunter22")
    repeat = lambda headers: f"no such key: {headers['x-key']}".encode()  # noqa: E731 -- an argument
    attach(answering(404, "text/plain", repeat))
    run_spans(1)
    (metadata,) = wait_until(lambda: failures)
    assert "answered 404 Not Found: no such key: ***." in str(metadata["reason"])
    assert "hunter22" not in caplog.text


def test_without_a_worker_an_emitter_does_not_wait_and_what_waits_is_bounded(
    attach, free_port, run_spans, drops, monkeypatch
):
    monkeypatch.setattr("handlers.otlp.MOST", 100)
    attachment = attach(f"http://127.0.0.1:{free_port}", background=False, export_interval=0.001)
    run_spans(300)
    attachment.detach()
    assert sum(count for count, metadata in drops if metadata["policy"] == "not_sent") == 300


ENDPOINT = (
    "endpoint 'localhost:4318' is malformed. It must begin with http:// or https:// and name a "
    "host, with a port from 1 to 65535 if any, such as 'http://127.0.0.1:4318'."
)
PATH = (
    "endpoint ends in the path of one signal. Give what comes before it: "
    "endpoint='http://127.0.0.1:4318'."
)
SIGNALS = "signals must be a list of some of ('traces', 'metrics', 'logs'), got ['spans']."
WRITE = 'Write headers={"Authorization": "Bearer ..."}.'
NO_HEADERS = f"headers must map names to strings, got a str. {WRITE}"
BAD_HEADER = f"header 'x': *** has characters that no header may have. {WRITE}"
RESOURCE = (
    "resource must map names to strings or numbers, got {'a': None} (dict). Write "
    "resource={'deployment.environment.name': 'production'}."
)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"endpoint": "localhost:4318"}, ValueError, ENDPOINT),
        ({"endpoint": "http://h/v1/traces/"}, ValueError, PATH),
        ({"signals": ["spans"]}, ValueError, SIGNALS),
        ({"headers": "a=hunter22"}, TypeError, NO_HEADERS),
        ({"headers": {"x": "hunter22\r\ny: 1"}}, ValueError, BAD_HEADER),
        ({"resource": {"a": None}}, TypeError, RESOURCE),
        ({"service_name": 3}, TypeError, "service_name must be a string, got 3 (int)."),
        ({"max_series": 0}, ValueError, "max_series must be 1 or more, got 0."),
        (
            {"timeout": 0},
            ValueError,
            "timeout must be a finite number of seconds above 0, got 0.",
        ),
        (
            {"meter_provider": 3},
            TypeError,
            "meter_provider must be a MeterProvider of OpenTelemetry, got 3 (int).",
        ),
    ],
)
def test_a_mistake_is_found_when_it_is_attached(bus, options, error, text):
    with pytest.raises(error) as raised:
        handlers.attach("opentelemetry", registry=bus, **options)
    assert str(raised.value) == f"Handler 'opentelemetry': {text}"
    assert bus.list_handlers() == []


def test_an_endpoint_and_a_provider_do_not_go_together(bus):
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(shutdown_on_exit=False)
    with pytest.raises(ValueError, match="endpoint is for an endpoint, and providers were given"):
        handlers.attach(
            "opentelemetry", registry=bus, endpoint="http://h", tracer_provider=provider
        )


def test_a_pattern_that_is_none_is_found_when_it_is_attached(bus):
    with pytest.raises(TypeError):
        handlers.attach("opentelemetry", registry=bus, logs=["training.step"])


def test_metrics_that_could_not_be_sent_are_sent_later(bus, attach, receiver):
    receiver.answers = [(503, {})]
    steps = [counter("training.step.count", report_as="steps")]
    attachment = attach(receiver.url, signals=["metrics"], metrics=steps)
    for _ in range(4):
        bus.execute(STEP, {})
    assert attachment.flush(60)
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

    message = ExportMetricsServiceRequest.FromString(receiver.requests[-1][2])
    (metric,) = message.resource_metrics[0].scope_metrics[0].metrics
    assert metric.sum.data_points[0].as_double == 4
