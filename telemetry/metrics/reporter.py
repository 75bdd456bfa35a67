"""From an event to what is reported of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final, NamedTuple

from telemetry.metrics.define import check_metrics, complete
from telemetry.metrics.metric import Metric, Sample
from telemetry.metrics.naming import ANY, CLOCKS, dotted, fill, is_duration, text
from telemetry.names import matches
from telemetry.records import EventName
from telemetry.values import to_python

MAX_PLANS: Final = 4096


class Plan(NamedTuple):
    """What is reported of the events of one name."""

    named: tuple[Metric, ...]
    rest: Metric | None
    taken: frozenset[str]
    """The measurements that ``rest`` is not for."""
    expanded: dict[str, Metric]
    """What ``rest`` is for each measurement seen so far."""


class Reporter:
    """Applies definitions to events. One thread at a time may use it.

    Args:
        metrics: The definitions.

    Example:
        >>> from telemetry.metrics import last_value
        >>> reporter = Reporter([last_value("training.step.loss", tags=["run_id"])])
        >>> (sample,) = reporter.samples(("training", "step"), {"loss": 2.5}, {"run_id": "a"})
        >>> sample.name, sample.value, sample.tags
        ('training.loss', 2.5, {'run_id': 'a'})
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = check_metrics(metrics)
        self._plans: dict[EventName, Plan] = {}

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The definitions."""
        return self._metrics

    def samples(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> list[Sample]:
        """What is reported of one event, sampling left to the caller.

        Args:
            event: Its name.
            measurements: Its measurements; one that is no single number is not reported.
            metadata: Its metadata.
        """
        plan = self._plans.get(event) or self._plan(event)
        found = []
        for metric in plan.named:
            value = 1.0 if metric.kind == "counter" else _number(measurements.get(metric.source))
            if value is not None:
                found.append((metric, value))
        found.extend(_rest(event, plan, measurements))
        return [
            _sample(metric, value, metadata)
            for metric, value in found
            if metric.keep is None or metric.keep(metadata)
        ]

    def sampled(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> list[Sample]:
        """What is reported of one event, thinned out by each metric's ``sampling_rate``.

        What is counted or summed is multiplied, so that totals stay right on average.
        """
        return [
            _scaled(sample)
            for sample in self.samples(event, measurements, metadata)
            if sample.metric.sampling_rate >= 1 or random.random() < sample.metric.sampling_rate
        ]

    def _plan(self, event: EventName) -> Plan:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        mine = [metric for metric in self._metrics if matches(metric.event, event)]
        named = tuple(_for_event(m, event) for m in mine if m.measurement != ANY)
        rest = next((m for m in mine if m.measurement == ANY), None)
        taken = frozenset(m.measurement for m in named if m.kind != "counter") | CLOCKS
        plan = Plan(named, None if event[-1] == "exception" else rest, taken, {})
        self._plans[event] = plan
        return plan


def _rest(
    event: EventName, plan: Plan, measurements: Mapping[str, Any]
) -> Iterator[tuple[Metric, float]]:
    """What the definition of ``*`` gives for an event."""
    if plan.rest is None:
        return
    for measurement, given in measurements.items():
        if measurement in plan.taken or not isinstance(measurement, str):
            continue
        value = _number(given)
        if value is None or "@" in measurement:  # a value that was reduced for another definition
            continue
        metric = plan.expanded.get(measurement)
        if metric is None:
            metric = _expanded(plan.rest, event, measurement)
            if len(plan.expanded) < MAX_PLANS:
                plan.expanded[measurement] = metric
        yield metric, value


def _expanded(rest: Metric, event: EventName, measurement: str) -> Metric:
    """The definition of one measurement that ``*`` stands for."""
    is_default = rest.report_as == complete(replace(rest, report_as="")).report_as
    summarised = rest.kind == "last_value" and is_duration(measurement)
    metric = replace(
        rest,
        kind="summary" if summarised else rest.kind,
        event=event,
        measurement=measurement,
        report_as="" if is_default else rest.report_as,
    )
    unit = (rest.unit, rest.unit) if rest.unit else None
    metric = complete(metric, unit)
    return _for_event(replace(metric, factor=rest.factor if unit else metric.factor), event)


def _for_event(metric: Metric, event: EventName) -> Metric:
    """With what is known of the name now filled in."""
    name = metric.report_as.replace("{event}", dotted(event))
    return replace(metric, report_as=name.replace("{measurement}", _literal(metric.measurement)))


def _literal(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _sample(metric: Metric, value: float, metadata: Mapping[str, Any]) -> Sample:
    name = fill(metric.report_as, metadata) if "{" in metric.report_as else metric.report_as
    tags = {key: text(metadata[key]) for key in metric.tags if metadata.get(key) is not None}
    return Sample(metric, name, value * metric.factor, tags)


def _scaled(sample: Sample) -> Sample:
    rate = sample.metric.sampling_rate
    totals = rate < 1 and sample.metric.kind in ("counter", "sum")
    return sample._replace(value=sample.value / rate) if totals else sample


def _number(value: object) -> float | None:
    """A measurement as a number; None for what is no single one."""
    plain = to_python(value)
    if not isinstance(plain, int | float):
        return None
    try:
        return float(plain)
    except OverflowError:
        return inf if plain > 0 else -inf
