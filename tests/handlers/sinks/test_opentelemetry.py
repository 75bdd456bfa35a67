"""Spans, metrics and log records in providers of the program, read from the SDK's own exporters."""

import math
import sys
import time

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import handlers
from telemetry.metrics import counter, distribution, last_value, sum_

STEP = ("training", "step")


class Program:
    """A program with providers of its own."""

    def __init__(self):
        self.spans_kept = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_kept))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.logs_kept = InMemoryLogRecordExporter()
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.logs_kept))

    @property
    def spans(self):
        return {span.name: span for span in self.spans_kept.get_finished_spans()}

    @property
    def metrics(self):
        data = self.reader.get_metrics_data()
        scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    @property
    def logs(self):
        return [one.log_record for one in self.logs_kept.get_finished_logs()]


@pytest.fixture
def program_of_users():
    return Program()


@pytest.fixture
def attach(bus, program_of_users):
    given = {
        "tracer_provider": program_of_users.tracers,
        "meter_provider": program_of_users.meters,
        "logger_provider": program_of_users.loggers,
    }
    return lambda **options: handlers.attach("opentelemetry", registry=bus, **{**given, **options})


def points(metric):
    return {tuple(sorted(p.attributes.items())): p for p in metric.data.data_points}


def test_the_spans_of_the_bus_form_the_same_tree_with_the_times_of_the_events(
    bus, attach, program_of_users
):
    events = []
    bus.attach("seen", ("**",), lambda *event: events.append(event))
    attachment = attach()
    with bus.span(("workflow", "run"), {"workflow": "w", "run_id": "r"}):
        with bus.span(("stage", "run"), {"stage": "prepare", "module": None}) as stage:
            stage.measure(rows=3, share=0.5)
            stage.annotate(success=True)
        with bus.span(("stage", "teardown")):
            pass
    assert attachment.flush()

    found = program_of_users.spans
    assert set(found) == {"workflow.run", "stage.run", "stage.teardown"}
    root, stage = found["workflow.run"], found["stage.run"]
    assert root.parent is None
    assert stage.parent.span_id == root.context.span_id == found["stage.teardown"].parent.span_id
    assert stage.context.trace_id == root.context.trace_id
    assert dict(root.attributes) == {"workflow": "w", "run_id": "r"}
    assert dict(stage.attributes) == {"stage": "prepare", "success": True, "rows": 3, "share": 0.5}
    assert stage.status.status_code is StatusCode.UNSET
    assert stage.instrumentation_scope.name == "trainbus"
    by_name = {event[0]: event[1] for event in events}
    started = by_name["stage", "run", "start"]["system_time"]
    assert stage.start_time == started
    assert stage.end_time == started + by_name["stage", "run", "stop"]["duration"]


def test_an_exception_is_recorded_with_its_type_message_and_stack(bus, attach, program_of_users):
    attachment = attach()
    with pytest.raises(FloatingPointError), bus.span(("custom_loss",), {"model_id": "m"}):
        raise FloatingPointError("loss is NaN")
    with pytest.raises(handlers.DeliveryError), bus.span(("stage", "run")):
        raise handlers.DeliveryError("refused")
    assert attachment.flush()
    span = program_of_users.spans["custom_loss"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "FloatingPointError: loss is NaN"
    (event,) = span.events
    assert event.name == "exception"
    assert event.timestamp == span.end_time
    assert event.attributes["exception.type"] == "FloatingPointError"
    assert event.attributes["exception.message"] == "loss is NaN"
    stack = event.attributes["exception.stacktrace"]
    assert stack.startswith("Traceback (most recent call last):\n  File ")
    assert 'raise FloatingPointError("loss is NaN")' in stack
    assert stack.endswith("FloatingPointError: loss is NaN")
    assert dict(span.attributes) == {"model_id": "m"}
    (event,) = program_of_users.spans["stage.run"].events
    assert event.attributes["exception.type"] == "handlers.errors.DeliveryError"


def test_a_span_that_began_before_is_made_of_its_end(bus, attach, program_of_users):
    bus.attach("seen", ("**",), lambda *event: None)
    span = bus.start_span(("stage", "run"), {"stage": "late"})
    attachment = attach()
    before = time.time_ns()
    span.stop()
    after = time.time_ns()
    assert attachment.flush()
    made = program_of_users.spans["stage.run"]
    assert made.attributes["stage"] == "late"
    assert before <= made.end_time <= after
    assert made.start_time < made.end_time


def test_what_never_ends_is_sent_as_unfinished_at_the_end(bus, attach, program_of_users):
    attachment = attach()
    bus.start_span(("stage", "run"), {"stage": "stuck"})
    attachment.detach()
    span = program_of_users.spans["stage.run"]
    assert dict(span.attributes) == {"stage": "stuck", "trainbus.unfinished": True}
    assert span.status.status_code is StatusCode.UNSET


def test_open_spans_are_bounded_and_a_forgotten_one_is_still_sent_when_it_ends(
    bus, attach, program_of_users, drops, monkeypatch
):
    monkeypatch.setattr("handlers.otel_spans.MAX_OPEN", 3)
    attachment = attach()
    spans = [bus.start_span(("stage", f"s{number}"), {"number": number}) for number in range(5)]
    spans[0].stop()
    assert attachment.flush()
    assert program_of_users.spans["stage.s0"].attributes["number"] == 0
    attachment.detach()
    assert set(program_of_users.spans) == {"stage.s0", "stage.s2", "stage.s3", "stage.s4"}
    assert sum(count for count, metadata in drops if metadata["policy"] == "open_spans") == 2


def test_each_kind_becomes_its_instrument(bus, attach, program_of_users):
    attachment = attach(
        metrics=[
            last_value("training.step.loss", tags=["run_id"], description="Training loss"),
            counter("training.step.count", report_as="steps"),
            sum_("training.step.tokens", report_as="tokens", unit="kB"),
            distribution("training.step.wait", report_as="Wait", unit=("s", "ms"), buckets=[1, 2]),
        ]
    )
    for loss, tokens, wait in ((2.5, 10, 0.0005), (0.25, -4, 0.002)):
        bus.execute(STEP, {"loss": loss, "tokens": tokens, "wait": wait}, {"run_id": "a"})
    bus.execute(STEP, {"loss": 7.0})
    assert attachment.flush()
    found = program_of_users.metrics
    loss = found["training.loss"]
    assert (loss.description, type(loss.data).__name__) == ("Training loss", "Gauge")
    assert points(loss)[(("run_id", "a"),)].value == 0.25
    assert points(loss)[()].value == 7.0
    assert points(found["steps"])[()].value == 3
    assert found["steps"].data.is_monotonic is True
    assert points(found["tokens"])[()].value == 6
    assert found["tokens"].data.is_monotonic is False
    assert found["tokens"].unit == "kBy"
    wait = points(found["wait"])[()]
    assert (wait.explicit_bounds, wait.bucket_counts) == ((1, 2), (1, 1, 0))
    assert (wait.sum, wait.count) == (2.5, 2)


def test_what_opentelemetry_does_not_take_is_counted(bus, attach, program_of_users, drops, caplog):
    attachment = attach(
        max_series=2,
        metrics=[
            last_value("training.step.loss", tags=["worker"]),
            distribution("training.step.wait", report_as="wait"),
            last_value("training.step.lr", report_as="WAIT"),
        ],
    )
    for odd in (math.nan, math.inf):
        bus.execute(STEP, {"loss": odd}, {"worker": 0})
    for worker in range(4):
        bus.execute(
            STEP, {"loss": 1.0, "wait": -1.0 if worker else 1.0, "lr": 0.5}, {"worker": worker}
        )
    assert attachment.flush()
    assert len(points(program_of_users.metrics["training.loss"])) == 2
    attachment.detach()
    lost = {}
    for count, metadata in drops:
        lost[metadata["policy"]] = lost.get(metadata["policy"], 0) + count
    assert lost == {"not_finite": 2, "negative": 3, "name_taken": 4, "max_series": 2}
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_rare_events_become_log_records_with_their_name_and_time(bus, attach, program_of_users):
    attachment = attach()
    before = time.time_ns()
    bus.execute(("training", "checkpoint"), {"size_bytes": 1024}, {"path": "a.pt", "step": 3})
    after = time.time_ns()
    raised = {"rule": "kl", "severity": "critical", "message": "KL is 0.2"}
    bus.execute(("alert", "raised"), {"value": 0.2, "limit": 0.1}, raised)
    bus.execute(("model", "registered"), {}, {"name": "m", "version": 2})
    assert attachment.flush()
    checkpoint, alert, registered = program_of_users.logs
    assert checkpoint.event_name == checkpoint.body == "training.checkpoint"
    assert dict(checkpoint.attributes) == {"size_bytes": 1024, "path": "a.pt", "step": 3}
    assert before <= checkpoint.timestamp <= after
    assert checkpoint.severity_text == "INFO"
    assert (alert.event_name, alert.body) == ("alert.raised", "KL is 0.2")
    assert (alert.severity_text, alert.severity_number.value) == ("FATAL", 21)
    assert registered.event_name == "model.registered"


def test_what_comes_at_each_step_is_no_log_record_and_what_is_nothing_else_is_one(
    bus, attach, program_of_users
):
    attachment = attach()
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    bus.execute(("rl", "step"), {"entropy": 1.0}, {"step": 1})
    bus.execute(("my", "number"), {"x": 1.0})
    bus.execute(("my", "note"), {}, {"text": "hello"})
    with bus.span(("custom_loss",)):
        pass
    assert attachment.flush()
    assert [log.event_name for log in program_of_users.logs] == ["my.note"]


def test_patterns_say_what_becomes_a_log_record(bus, attach, program_of_users):
    attachment = attach(logs=[("training", "*"), ("custom_loss", "stop")])
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    bus.execute(("model", "registered"), {}, {"name": "m"})
    with bus.span(("custom_loss",)):
        pass
    assert attachment.flush()
    names = [log.event_name for log in program_of_users.logs]
    assert names == ["training.step", "custom_loss.stop"]


def test_a_failing_handler_is_a_log_record_with_the_exception(bus, attach, program_of_users):
    attachment = attach()

    def fail(event, measurements, metadata, config):
        raise KeyError("weight")

    bus.attach("broken", STEP, fail)
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    assert attachment.flush()
    (log,) = program_of_users.logs
    assert (log.event_name, log.severity_text) == ("telemetry.handler.failure", "ERROR")
    assert log.attributes["exception.type"] == "KeyError"
    assert log.attributes["exception.message"] == "'weight'"
    assert log.attributes["handler_id"] == "broken"


def test_attributes_keep_their_types_and_nothing_is_too_much_for_them(
    bus, attach, program_of_users
):
    class Hostile:
        def __repr__(self):
            raise RuntimeError

    attachment = attach()
    hostile = {f"key{number}": "x" * 10_000 for number in range(300)}
    given = {
        "flag": True,
        "nan": math.nan,
        "big": 2**80,
        "key": ("layer", "conv1"),
        "bounds": [1, 2.5],
        "nested": {"a": [1]},
        "bad": "\ud800",
        "hostile": Hostile(),
        7: "number",
        **hostile,
    }
    bus.execute(("my", "note"), {}, given)
    assert attachment.flush()
    (log,) = program_of_users.logs
    attributes = log.attributes
    assert attributes["flag"] is True
    assert math.isnan(attributes["nan"])
    assert attributes["big"] == str(2**80)
    assert tuple(attributes["key"]) == ("layer", "conv1")
    assert tuple(attributes["bounds"]) == (1.0, 2.5)
    assert attributes["nested"] == '{"a": [1]}'
    assert attributes["bad"] == "\\ud800"
    assert "Hostile" in attributes["hostile"]
    assert attributes["7"] == "number"
    assert len(attributes) == 100
    assert max(len(v) for v in attributes.values() if isinstance(v, str)) == 1000


def test_providers_of_the_program_are_flushed_and_never_shut_down(bus, attach, program_of_users):
    attachment = attach(meter_provider=None, logger_provider=None)
    with bus.span(("stage", "run")):
        pass
    attachment.detach()
    with program_of_users.tracers.get_tracer("mine").start_as_current_span("later"):
        pass
    assert set(program_of_users.spans) == {"stage.run", "later"}


def test_an_event_after_the_end_is_counted(bus, attach, drops):
    attachment = attach()
    attachment.detach()
    attachment.handler(STEP, {"loss": 1.0}, {}, None)
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(1, "closed")]


def test_a_forked_child_sends_nothing_through_providers_of_its_parent(
    bus, attach, program_of_users, in_child
):
    attachment = attach()
    span = bus.start_span(("stage", "run"))
    assert attachment.flush()

    def child():
        announced = []
        bus.attach("drops", ("telemetry", "handler", "overflow"), lambda *a: announced.append(a))
        bus.execute(STEP, {"loss": 1.0})
        attachment.detach()
        assert [(m["dropped"], meta["policy"]) for _, m, meta, _ in announced] == [(1, "forked")]
        assert program_of_users.spans == {}

    in_child(child)
    span.stop()
    attachment.detach()
    assert set(program_of_users.spans) == {"stage.run"}


def test_a_missing_package_names_the_extra(bus, attach, monkeypatch):
    import telemetry

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(telemetry.MissingExtraError) as raised:
        attach()
    assert str(raised.value) == (
        "The handler 'opentelemetry' needs the module 'opentelemetry.sdk', which cannot be "
        "imported. Install it with: pip install 'trainbus[opentelemetry]'"
    )


def test_two_reported_names_that_would_be_one_are_not_merged(bus, attach, program_of_users, drops):
    attachment = attach(
        metrics=[
            counter("training.step.count", report_as="my steps"),
            counter("training.step.count", report_as="my+steps"),
            counter("training.step.count", report_as="My_Steps"),  # names have no case there
        ]
    )
    bus.execute(STEP, {})
    assert attachment.flush()
    assert points(program_of_users.metrics["my_steps"])[()].value == 1
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(2, "name_taken")]


def test_integers_beyond_64_bits_in_a_list_are_text(bus, attach, program_of_users):
    attachment = attach()
    given = {"large": [1, 2**70], "mixed": [0.5, 2**2000], "endless": [2**50_000], "fine": [1, -5]}
    bus.execute(("my", "note"), {}, given)
    assert attachment.flush()
    assert attachment.active
    (log,) = program_of_users.logs
    assert log.attributes["large"] == f'[1, "{2**70}"]'
    assert log.attributes["mixed"].startswith('[0.5, "')
    assert log.attributes["endless"].startswith("[")
    assert tuple(log.attributes["fine"]) == (1, -5)


@pytest.mark.parametrize("duration", [2**62, 2**70, -1, True, "long", None])
def test_a_span_whose_duration_cannot_be_ends_when_it_ended(
    bus, attach, program_of_users, drops, duration
):
    attachment = attach(meter_provider=None)
    context = {"span_id": 7, "parent_id": None, "trace_id": 7}
    bus.execute(
        ("stage", "run", "stop"), {"duration": duration}, {"telemetry_span_context": context}
    )
    assert attachment.flush()
    span = program_of_users.spans["stage.run"]
    assert span.start_time <= span.end_time <= time.time_ns()
    assert span.end_time - span.start_time <= 1
    assert drops == []
