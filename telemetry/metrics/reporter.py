"""From an event to what is reported of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from random import Random
from typing import Any, Final, NamedTuple

from telemetry.events.reported import bind, fill, is_duration, text
from telemetry.metrics.define import check_metrics, complete
from telemetry.metrics.metric import Metric, Sample
from telemetry.metrics.naming import ANY, CLOCKS, known
from telemetry.metrics.units import divisor
from telemetry.names import ONE, REST
from telemetry.records import EventName
from telemetry.values import to_python

MAX_PLANS: Final = 4096
_MARKS: Final = ("start", "exception")
"""Events that say that something is so, and not how much."""
_new = tuple.__new__


class Reading(NamedTuple):
    """How the samples of one definition are made, as far as that is the same for all of them."""

    metric: Metric
    name: str
    is_template: bool
    """Whether the name has keys of the metadata in it."""
    factor: float
    divisor: float
    """What the value is divided by in place of the factor, where that is more exact; else 0."""


class Plan(NamedTuple):
    """What is reported of the events of one name."""

    named: tuple[Reading, ...]
    rest: Metric | None
    taken: frozenset[str]
    """The measurements that ``rest`` is not for."""
    counts: frozenset[str]
    """The names of counters, under which nothing else is reported."""
    expanded: dict[str, Reading | None]
    """What ``rest`` is for each measurement seen so far; None for one that it is not for."""
    thinned: bool
    """Whether a definition has a sampling rate below 1."""


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
        # Dice of its own: a user's seeded generator gives the same numbers with and without it.
        self._random = Random()
        self._process = os.getpid()

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
        return _samples(self._plan_of(event), event, measurements, metadata)

    def reports(self, event: EventName) -> bool:
        """Whether anything can be reported of events of a name; any thread may ask.

        Example:
            >>> from telemetry.metrics import tracking
            >>> reporter = Reporter(tracking())
            >>> reporter.reports(("my", "span", "start")), reporter.reports(("my", "span", "stop"))
            (False, True)
        """
        plan = self._plan_of(event)
        return bool(plan.named) or plan.rest is not None

    def sampled(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> list[Sample]:
        """What is reported of one event, thinned out by each metric's ``sampling_rate``.

        What is counted or summed is multiplied, so that totals stay right on average.
        """
        plan = self._plan_of(event)
        samples = _samples(plan, event, measurements, metadata)
        if not plan.thinned:
            return samples
        return [
            _scaled(sample)
            for sample in samples
            if sample.metric.sampling_rate >= 1 or self._falls_within(sample.metric.sampling_rate)
        ]

    def _plan_of(self, event: EventName) -> Plan:
        return self._plans.get(event) or self._plan(event)

    def _falls_within(self, rate: float) -> bool:
        if self._process != os.getpid():  # a forked child's dice fall differently
            self._process = os.getpid()
            self._random.seed()
        return self._random.random() < rate

    def _plan(self, event: EventName) -> Plan:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        mine = [metric for metric in self._metrics if metric.matches(event)]
        named = tuple(_for_event(m, event, m.measurement) for m in mine if m.measurement != ANY)
        rest = next((m for m in mine if m.measurement == ANY), None)
        values = [m for m in named if m.kind != "counter"]
        taken = CLOCKS.union(*((m.measurement, m.source, m.presence) for m in values if m.reduce))
        plan = Plan(
            tuple(map(_reading, named)),
            None if event[-1] in _MARKS else rest,
            taken.union(m.measurement for m in values),
            frozenset(m.report_as for m in named if m.kind == "counter"),
            {},
            any(m.sampling_rate < 1 for m in mine),
        )
        self._plans[event] = plan
        return plan


# A worker makes some samples for every event, beside a training thread that wants the interpreter
# too: what can be, is looked up once, and most values need no call.


def _samples(
    plan: Plan, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
) -> list[Sample]:
    found: list[tuple[Reading, float]] = []
    for reading in plan.named:
        metric = reading.metric
        value = 1.0 if metric.kind == "counter" else _value(metric, measurements)
        if value is not None:
            found.append((reading, value))
    if plan.rest is not None:
        found += _rest(plan, plan.rest, event, measurements)
    tags: dict[tuple[str, ...], dict[str, str]] = {(): {}}  # most metrics have the same
    return [
        _sample(reading, value, metadata, tags)
        for reading, value in found
        if reading.metric.keep is None or reading.metric.keep(metadata)
    ]


def _value(metric: Metric, measurements: Mapping[str, Any]) -> float | None:
    """What a definition reads; the event's own value where nobody reduced it."""
    if metric.reduce is None or metric.source not in measurements:
        given = measurements.get(metric.measurement)
        return given if type(given) is float else _number(given)
    if _number(measurements.get(metric.presence, 1)) == 0:
        return None
    return _number(measurements[metric.source])


def _rest(
    plan: Plan, rest: Metric, event: EventName, measurements: Mapping[str, Any]
) -> list[tuple[Reading, float]]:
    """What the definition of ``*`` gives for an event."""
    found = []
    for measurement, given in measurements.items():
        seen = measurement in plan.expanded
        own = plan.expanded[measurement] if seen else _expand(plan, rest, event, measurement)
        if own is None:
            continue
        value = given if type(given) is float else _number(given)
        if value is not None:
            found.append((own, value))
    return found


def _expand(plan: Plan, rest: Metric, event: EventName, measurement: object) -> Reading | None:
    """What the definition of ``*`` is for a measurement."""
    reading = None
    if isinstance(measurement, str) and measurement not in plan.taken:
        reading = _reading(_for_event(rest, event, measurement))
        if reading.name in plan.counts:
            reading = None
    if isinstance(measurement, str) and len(plan.expanded) < MAX_PLANS:
        plan.expanded[measurement] = reading
    return reading


def _reading(metric: Metric) -> Reading:
    name, factor = metric.report_as, metric.factor
    return Reading(metric, name, "{" in name or "}" in name, factor, divisor(factor))


def _for_event(metric: Metric, event: EventName, measurement: str) -> Metric:
    """A definition as it is for one event and measurement, with what is known of these."""
    if {ANY, ONE, REST} & {metric.measurement, *metric.event}:
        metric = _expanded(metric, event, measurement)
    return replace(metric, report_as=bind(metric.report_as, event, measurement))


def _expanded(metric: Metric, event: EventName, measurement: str) -> Metric:
    """A definition of many, completed with what the catalogue says of one of them."""
    is_default = metric.report_as == complete(replace(metric, report_as="")).report_as
    is_any = metric.measurement == ANY
    summarised = is_any and metric.kind == "last_value"
    special = replace(
        metric,
        kind="summary" if summarised and is_duration(measurement) else metric.kind,
        event=event,
        measurement=measurement,
        report_as="" if is_default else metric.report_as,
    )
    if is_any and not (metric.measured_in or known(event, measurement).unit):
        special = replace(special, unit="")  # what it is converted to, where it can be
    try:
        return complete(special)
    except ValueError:  # the unit that was asked for is none of this measurement's
        return complete(replace(special, measured_in="", unit=""))


def _sample(
    reading: Reading,
    value: float,
    metadata: Mapping[str, Any],
    tags: dict[tuple[str, ...], dict[str, str]],
) -> Sample:
    metric, name, is_template, factor, inverse = reading
    if is_template:
        name = fill(name, metadata)
    if factor != 1:
        value = value / inverse if inverse else value * factor
    own = tags.get(metric.tags)
    if own is None:
        own = tags[metric.tags] = _tags(metric, metadata)
    return _new(Sample, (metric, name, value, own))


def _tags(metric: Metric, metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: text(given) for key in metric.tags if (given := metadata.get(key)) is not None}


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
