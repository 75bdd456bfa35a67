"""What is reported of events, said once for all sinks that keep numbers.

A definition names a measurement of an event and how its values combine; sinks that keep numbers
(Datadog, Prometheus, OpenTelemetry, W&B, MLflow, TensorBoard, trackio) take a list of them as
``metrics=``. Modelled on Erlang's `Telemetry.Metrics <https://hexdocs.pm/telemetry_metrics>`_.

Example:
    >>> from telemetry.metrics import Reporter, counter, last_value, monitoring
    >>> mine = [last_value("training.step.loss", tags=["run_id"]), counter("alert.raised.count")]
    >>> reporter = Reporter(monitoring(*mine))
    >>> step = (("training", "step"), {"loss": 2.5}, {"run_id": "a", "step": 3})
    >>> [(sample.name, sample.value) for sample in reporter.samples(*step)]
    [('training.loss', 2.5), ('training.step', 1.0)]
"""

from telemetry.metrics.defaults import monitoring, tracking
from telemetry.metrics.define import (
    check_metrics,
    counter,
    distribution,
    last_value,
    sum_,
    summary,
)
from telemetry.metrics.metric import Kind, Metric, Predicate, Reduction, Sample
from telemetry.metrics.reporter import Reporter

__all__ = [
    "Kind",
    "Metric",
    "Predicate",
    "Reduction",
    "Reporter",
    "Sample",
    "check_metrics",
    "counter",
    "distribution",
    "last_value",
    "monitoring",
    "sum_",
    "summary",
    "tracking",
]
