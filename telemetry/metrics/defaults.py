"""What is reported when nobody says what: definitions from the event catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from telemetry.events import CATALOGUE, EventSpec
from telemetry.events.reported import is_duration
from telemetry.metrics.define import check_metrics, counter, last_value, sum_, summary
from telemetry.metrics.metric import Metric
from telemetry.metrics.naming import CLOCKS, YOURS
from telemetry.records import Pattern

TAGS: Final = ("run_id", "user_id")
"""By which everything is told apart: keys with few values, usual in `telemetry.context`."""

_FEW_VALUES: Final = frozenset(
    {"algo", "backend", "handler_id", "model", "model_id", "policy", "probe", "scope", "workflow"}
)
_GROUP: Final = ("smartclip", "clip", "group")
_NEVER_FINITE: Final = (("smartclip", "clip", "nonfinite"), "grad_norm")
_SUMS: Final = frozenset({"dropped", "count"})
_COUNTED: Final = {
    ("training", "step"): "training.step",
    ("model", "registered"): "model.registered",
    ("alert", "raised"): "alert.{rule}.raised",
    ("alert", "cleared"): "alert.{rule}.cleared",
    ("telemetry", "handler", "failure"): "telemetry.handler.failure",
    ("telemetry", "probe", "failure"): "telemetry.probe.failure",
}


def tracking(*changes: Metric) -> tuple[Metric, ...]:
    """Definitions for experiment trackers: each measurement of each event is a curve.

    Args:
        *changes: Definitions of yours; each replaces those of the same event and measurement.

    Example:
        >>> [metric.report_as for metric in tracking()]
        ['{event}.{measurement}']
    """
    return _changed((last_value("**.*"),), changes)


def monitoring(*changes: Metric) -> tuple[Metric, ...]:
    """Definitions for time-series databases: gauges, counts and durations, with few tags.

    Groups of gradients are one summary, because a name or a tag for each parameter would make
    thousands of time series.

    Args:
        *changes: Definitions of yours; each replaces those of the same event and measurement.

    Example:
        >>> names = {metric.report_as: metric.kind for metric in monitoring()}
        >>> names["custom_loss.{measurement}_ms"], names["training.step"]
        ('summary', 'counter')
    """
    metrics = (metric for spec in CATALOGUE for metric in _metrics_of(spec))
    return _changed((*metrics, last_value("**.*", tags=TAGS)), changes)


def _changed(metrics: tuple[Metric, ...], changes: tuple[Metric, ...]) -> tuple[Metric, ...]:
    taken = {_subject(change) for change in check_metrics(changes)}
    return (*changes, *(metric for metric in metrics if _subject(metric) not in taken))


def _subject(metric: Metric) -> tuple[Pattern, str, bool]:
    return metric.event, metric.measurement, metric.kind == "counter"


def _metrics_of(spec: EventSpec) -> Iterator[Metric]:
    if "*" in spec.name or spec.name[-1] == "start":
        return
    tags = (*TAGS, *(f.name for f in spec.metadata if f.name in _FEW_VALUES))
    if spec.name[-1] == "exception":
        name = spec.reported.replace("{measurement}", "exceptions").removesuffix("_ms")
        yield counter(f"{spec.dotted}.count", report_as=name, tags=tags)
        return
    if spec.name in _COUNTED:
        yield counter(f"{spec.dotted}.count", report_as=_COUNTED[spec.name], tags=tags)
    for field in spec.measurements:
        if (spec.name, field.name) == _NEVER_FINITE:
            yield last_value(f"{spec.dotted}.{field.name}", drop=_always)
        elif field.name not in CLOCKS:
            yield _metric_of(spec, field.name, tags)
    if spec.emitter == YOURS and len(tags) > len(TAGS):
        yield last_value(f"{spec.dotted}.*", tags=tags)


def _metric_of(spec: EventSpec, measurement: str, tags: tuple[str, ...]) -> Metric:
    name = f"{spec.dotted}.{measurement}"
    if spec.name == _GROUP:
        return summary(name, report_as="smartclip.group.{measurement}", tags=tags)
    if is_duration(measurement):
        return summary(name, tags=tags)
    return (sum_ if measurement in _SUMS else last_value)(name, tags=tags)


def _always(_metadata: Mapping[str, Any]) -> bool:
    return True
