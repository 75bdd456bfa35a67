"""Several values of one batch are one for a gauge and a counter, where nobody looks at each."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

import handlers
from telemetry.metrics import counter, distribution, last_value, sum_

STEP = ("training", "step")
DEFINED = (
    last_value("training.step.loss", tags=["run_id"]),
    counter("training.step.count", report_as="steps", tags=["run_id"]),
    sum_("training.step.tokens", report_as="tokens"),
    distribution("training.step.wait", report_as="wait", buckets=[1, 2]),
)


def emit(bus, attachment, run_id, *losses):
    for loss in losses:
        measurements = {"loss": loss, "tokens": 10, "wait": 1.5}
        bus.execute(STEP, measurements, {"run_id": run_id})
    return attachment


def points_of(receiver):
    """The points that came with the last request, by metric and run."""
    body = [body for path, _, body in receiver.requests if path == "/v1/metrics"][-1]
    (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    (scope,) = resource.scope_metrics
    found = {}
    for metric in scope.metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            runs = [attribute.value.string_value for attribute in point.attributes]
            found[metric.name, *runs] = point
    return found


@pytest.fixture
def attachment(bus, receiver):
    return handlers.attach(
        "opentelemetry",
        registry=bus,
        endpoint=receiver.url,
        metrics=DEFINED,
        signals=["metrics"],
        export_interval=1000.0,
    )


def test_each_series_has_its_last_value_and_all_that_was_counted(bus, receiver, attachment):
    emit(bus, attachment, "a", 3.0, 2.0)
    emit(bus, attachment, "b", 9.0)
    emit(bus, attachment, "a", 1.0)
    assert attachment.flush()
    first = points_of(receiver)
    assert first["training.loss", "a"].as_double == 1.0
    assert first["training.loss", "b"].as_double == 9.0
    assert first["steps", "a"].as_double == 3
    assert first["steps", "b"].as_double == 1
    assert first["tokens",].as_double == 40
    assert list(first["wait",].bucket_counts) == [0, 4, 0]

    emit(bus, attachment, "b", 8.0, 7.0)
    assert attachment.flush()
    second = points_of(receiver)
    assert second["training.loss", "a"].as_double == 1.0
    assert second["training.loss", "b"].as_double == 7.0
    assert second["steps", "b"].as_double == 3
    assert second["wait",].count == 6


def test_a_view_of_the_program_sees_each_value(bus):
    reader = InMemoryMetricReader()
    spread = View(
        instrument_name="training.loss", aggregation=ExplicitBucketHistogramAggregation([1.5])
    )
    meters = MeterProvider([reader], views=[spread])
    attachment = handlers.attach(
        "opentelemetry", registry=bus, meter_provider=meters, metrics=DEFINED
    )
    emit(bus, attachment, "a", 3.0, 2.0, 1.0)
    assert attachment.flush()
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    (loss,) = [metric for metric in scope.metrics if metric.name == "training.loss"]
    (point,) = loss.data.data_points
    assert (point.count, point.sum, point.bucket_counts) == (3, 6.0, (1, 2))
    meters.shutdown()
