"""Samples as Prometheus keeps them: gauges, counters and histograms with labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isfinite
from types import ModuleType
from typing import Any, Final

from handlers.buckets import buckets_of
from handlers.records import Site
from handlers.series import Labels, Series
from telemetry.metrics import Kind, Metric, Sample

MAX_KNOWN: Final = 10_000

_ILLEGAL: Final = re.compile("[^a-zA-Z0-9_]+")
_TYPES: Final[dict[Kind, str]] = {
    "counter": "counter",
    "last_value": "gauge",
    "sum": "gauge",
    "summary": "histogram",
    "distribution": "histogram",
}


_UPDATES: Final[dict[Kind, str]] = {
    "counter": "inc",
    "last_value": "set",
    "sum": "inc",
    "summary": "observe",
    "distribution": "observe",
}


class Families:
    """Makes the metrics of a registry as their first samples come.

    Args:
        client: The package ``prometheus_client``.
        registry: Where they are made.
        namespace: What their names begin with, "" for nothing.
        max_series: How many sets of values of its labels a metric may have.
    """

    def __init__(
        self, client: ModuleType, registry: Any, *, namespace: str, max_series: int
    ) -> None:
        self._client = client
        self._registry = registry
        self._namespace = namespace
        self._series = Series(max_series)
        self._collectors: dict[str, Any] = {}  # None for a name that the registry refuses
        # What takes the values of a series, so that most samples need no look at their names.
        self._updates: dict[tuple[str, Kind, Labels, Labels], Callable[[float], None]] = {}

    def record(self, sample: Sample) -> str:
        """Take a sample in; "" or the reason why it was refused."""
        metric = sample.metric
        # A sum or a histogram that met a NaN once would be NaN for ever; a gauge is not.
        if not (metric.kind == "last_value" or isfinite(sample.value)):
            return "not_finite"
        values = tuple([sample.tags.get(tag, "") for tag in metric.tags])
        key = (sample.name, metric.kind, metric.tags, values)
        update = self._updates.get(key)
        if update is None:
            child = self._child(sample, values)
            if isinstance(child, str):
                return child
            if len(self._updates) >= MAX_KNOWN:
                self._updates.clear()
            update = self._updates[key] = getattr(child, _UPDATES[metric.kind])
        update(sample.value)
        return ""

    def _child(self, sample: Sample, values: Labels) -> Any:
        """What takes the values of one series; the reason if nothing does."""
        metric = sample.metric
        kind = _TYPES[metric.kind]
        name = metric_name(sample.name, self._namespace)
        labels = tuple(map(label_name, metric.tags))
        if refusal := self._series.admit(name, sample.name, kind, metric.tags, values):
            return refusal
        if name not in self._collectors:
            self._collectors[name] = self._make(name, kind, labels, metric)
        collector = self._collectors[name]
        if collector is None:
            return "name_taken"
        return collector.labels(*values) if labels else collector

    def _make(self, name: str, kind: str, labels: Labels, metric: Metric) -> Any:
        about = _about(metric)
        client, registry = self._client, self._registry
        try:
            if kind == "counter":
                return client.Counter(name, about, labels, registry=registry)
            if kind == "gauge":
                return client.Gauge(name, about, labels, registry=registry)
            buckets = buckets_of(metric)
            return client.Histogram(name, about, labels, buckets=buckets, registry=registry)
        except ValueError:
            # A histogram "x" has the series "x_count" and "x_sum" as well, a counter "x_total":
            # only the registry knows all the names that are taken.
            return None


def metric_name(reported: str, namespace: str = "") -> str:
    """The name of a metric as Prometheus allows it; whatever else is in it becomes ``_``.

    A name already under the namespace is not prefixed twice.

    Example:
        >>> metric_name("smartclip.grad_norm[layer/conv1]"), metric_name("training.loss", "demo")
        ('smartclip_grad_norm_layer_conv1', 'demo_training_loss')
    """
    name = _ILLEGAL.sub("_", reported).strip("_") or "unnamed"
    if namespace and name != namespace and not name.startswith(f"{namespace}_"):
        return f"{namespace}_{name}"
    return f"_{name}" if name[0].isdigit() else name


def label_name(tag: str) -> str:
    """The name of a label as Prometheus allows it.

    ``le`` is what it calls the bound of a bucket, and two underscores at the beginning are its own.

    Example:
        >>> label_name("model.id"), label_name("le"), label_name("__name__"), label_name("1st")
        ('model_id', 'tag_le', 'tag_name__', 'tag_1st')
    """
    name = _ILLEGAL.sub("_", tag)
    if name == "le" or not name or name[0].isdigit() or name.startswith("__"):
        return f"tag_{name.lstrip('_')}"
    return name


def check_labels(site: Site, metrics: Iterable[Metric]) -> None:
    """Refuse two tags of one metric that would be one label.

    Raises:
        ValueError: There are such.
    """
    for metric in metrics:
        names = [label_name(tag) for tag in metric.tags]
        if len(set(names)) < len(names):
            raise ValueError(
                f"Handler {site.handler_id!r}: the tags {list(metric.tags)!r} of "
                f"{'.'.join(metric.event)}.{metric.measurement} would be the labels {names!r}, "
                "which must differ. Prometheus allows letters, digits and _ in their names."
            )


def _about(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    text = metric.description or f"{metric.measurement} of {'.'.join(metric.event)}"
    return f"{text}{unit}".encode("utf-8", "backslashreplace").decode()
