"""Definitions of what is reported, checked when they are made."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from numbers import Real
from typing import Any, Final, TypedDict, Unpack, get_args

from telemetry.events.reported import reported_in, with_unit
from telemetry.metrics import naming
from telemetry.metrics.metric import Kind, Metric, Predicate, Reduction
from telemetry.metrics.naming import ANY
from telemetry.metrics.units import factor
from telemetry.names import ONE, check_pattern
from telemetry.records import Pattern

REDUCTIONS: Final = get_args(Reduction)
BUS: Final = ("telemetry", "handler")
"""What the names of the bus's own events begin with."""


class Options(TypedDict, total=False):
    """What every definition takes."""

    report_as: str
    tags: Iterable[str]
    unit: str | tuple[str, str]
    description: str
    keep: Predicate
    drop: Predicate
    sampling_rate: float
    reduce: Reduction


def counter(name: str, **options: Unpack[Options]) -> Metric:
    """How many events there were.

    Args:
        name: The event and, last, what is counted, which need not be one of its measurements:
            ``"training.step.count"``.
        **options: As for `last_value`, but for ``unit`` and ``reduce``.

    Example:
        >>> steps = counter("training.step.count", report_as="training.step")
        >>> steps.event, steps.report_as
        (('training', 'step'), 'training.step')
    """
    return _define("counter", name, options)


def last_value(name: str, **options: Unpack[Options]) -> Metric:
    """The latest value of a measurement, as a gauge shows it.

    Args:
        name: The event and, last, the measurement: ``"training.step.loss"``. ``*`` as a segment of
            the event is any one, ``**`` any further ones; ``*`` as the measurement is all that no
            definition names, durations as summaries, but for readings of clocks and events that
            end in "start" or "exception".
        **options: ``report_as``: template of the reported name, with ``{event}``,
            ``{measurement}`` and keys of the metadata; by default as the catalogue says.
            ``tags``: keys of the metadata by which values are told apart; a key with many values
            (a step, a span id, a parameter's name) makes as many time series, for which vendors
            charge. ``unit``: of the reported value, or a pair ``(measured in, reported in)``; what
            the catalogue's measurements and the durations of spans are measured in is known, and
            these durations are reported in milliseconds unless this says otherwise. So is what the
            name of a duration says, as in ``wait_duration_ms``.
            ``description``: in words. ``keep`` or ``drop``: a function of the metadata that says
            whether an event counts; what it raises is the sink's failure. ``sampling_rate``: the
            probability with which it is reported. ``reduce``: ``"mean"``, ``"sum"``, ``"max"``
            or ``"min"`` over the ranks of a distributed run, all of which must emit the event.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The name has no measurement, the unit cannot be converted, ...

    Warns:
        UserWarning: The event or the measurement is not in the catalogue, but its like is.

    Example:
        >>> duration = last_value("custom_loss.stop.duration", unit="s")
        >>> duration.event, duration.measurement, duration.report_as, duration.factor
        (('custom_loss', 'stop'), 'duration', 'custom_loss.{measurement}_s', 1e-09)
    """
    return _define("last_value", name, options)


def sum_(name: str, **options: Unpack[Options]) -> Metric:
    """The sum of a measurement over all events; options as for `last_value`.

    Example:
        >>> sum_("telemetry.handler.overflow.dropped").kind
        'sum'
    """
    return _define("sum", name, options)


def summary(name: str, **options: Unpack[Options]) -> Metric:
    """Mean, extremes and percentiles of a measurement, as the sink computes them.

    Options as for `last_value`.

    Example:
        >>> summary("training.step.loss", tags=["run_id"]).tags
        ('run_id',)
    """
    return _define("summary", name, options)


def distribution(name: str, *, buckets: Iterable[float] = (), **options: Unpack[Options]) -> Metric:
    """How the values of a measurement are spread, in buckets or as percentiles over all hosts.

    Args:
        name: As for `last_value`.
        buckets: Upper bounds, in the reported unit, ascending; () for the sink's own. Datadog
            needs none.
        **options: As for `last_value`.

    Example:
        >>> distribution("rl.step.kl_divergence", buckets=[0.05, 0.1]).buckets
        (0.05, 0.1)
    """
    return replace(_define("distribution", name, options), buckets=_buckets(name, buckets))


def check_metrics(metrics: object) -> tuple[Metric, ...]:
    """Definitions, given as a list.

    Raises:
        TypeError: It is none, or one of them was not made by a function of this package.
    """
    if isinstance(metrics, str | Metric) or not isinstance(metrics, Iterable):
        raise TypeError(
            f"metrics must be a list of definitions, got {metrics!r} ({type(metrics).__name__}). "
            "Write metrics=[telemetry.metrics.last_value('training.step.loss')]."
        )
    given = tuple(metrics)
    for metric in given:
        if not isinstance(metric, Metric):
            raise TypeError(
                f"metrics has {metric!r} ({type(metric).__name__}), which is no definition. "
                "Allowed: counter, last_value, sum_, summary, distribution of telemetry.metrics."
            )
    return given


def _define(kind: Kind, name: str, options: Options) -> Metric:
    event, measurement = _parse(kind, name)
    for option in options:
        if option not in Options.__annotations__:
            allowed = ", ".join(Options.__annotations__)
            raise TypeError(f"Metric {name!r} has no option {option!r}. Allowed: {allowed}.")
    if kind == "counter" and (wrong := {"unit", "reduce"} & options.keys()):
        raise ValueError(f"Counter {name!r} cannot have {min(wrong)!r}: it counts events.")
    slip = naming.unknown(event, measurement, counted=kind == "counter")
    if slip:
        warnings.warn(f"Metric {name!r}: {slip}", UserWarning, stacklevel=3)
    metric = Metric(
        kind=kind,
        event=event,
        measurement=measurement,
        report_as=_report_as(name, options.get("report_as")),
        tags=_tags(name, options.get("tags", ())),
        description=_text(name, "description", options.get("description", "")),
        keep=_keep(name, options),
        sampling_rate=_rate(name, options.get("sampling_rate", 1.0)),
        reduce=_reduction(name, event, measurement, options.get("reduce")),
    )
    if kind == "counter":
        return complete(metric, None)
    unit = _unit(name, options.get("unit"))
    try:
        return complete(metric, unit)
    except ValueError as error:
        raise ValueError(f"Metric {name!r}: {error}") from error


def complete(metric: Metric, unit: tuple[str, str] | None = None) -> Metric:
    """A metric with what the catalogue knows about its measurement, where nothing was given.

    Raises:
        ValueError: The unit cannot be converted.
    """
    known = naming.known(metric.event, metric.measurement)
    measured, reported = _units(metric, known.unit, unit or _given(metric))
    default = known.report_as
    if metric.measurement != ANY:
        default = with_unit(default, metric.measurement, reported)
    return replace(
        metric,
        report_as=metric.report_as or default,
        measured_in=measured,
        unit=reported,
        factor=factor(measured, reported) if measured else 1.0,
        description=metric.description or known.about,
    )


def _given(metric: Metric) -> tuple[str, str] | None:
    return (metric.measured_in, metric.unit) if metric.unit else None


def _units(metric: Metric, known: str, given: tuple[str, str] | None) -> tuple[str, str]:
    if metric.kind == "counter" or (given is None and metric.measurement == ANY):
        return "", ""
    if given is not None:
        return given[0] or known, given[1]
    return known, reported_in(metric.measurement, known)


def _parse(kind: Kind, name: object) -> tuple[Pattern, str]:
    if not isinstance(name, str):
        raise TypeError(
            f"Metric name must be a string, got {name!r} ({type(name).__name__}). "
            "Write 'training.step.loss': the event, then the measurement."
        )
    *event, measurement = whole = tuple(name.split("."))
    if not event or not all(whole) or naming.is_event(whole):
        more = "count" if kind == "counter" else "loss"
        example = f"{name}.{more}" if all(whole) else "training.step.loss"
        raise ValueError(
            f"Metric {name!r} names no measurement. "
            f"Write the event, then the measurement: {example!r}."
        )
    if "*" in measurement and (measurement != ONE or kind == "counter"):
        raise ValueError(
            f"Metric {name!r} ends in {measurement!r}. Allowed: a name"
            f"{'' if kind == 'counter' else ', or * for all that no definition names'}."
        )
    try:
        return check_pattern(tuple(event)), measurement
    except ValueError as error:
        raise ValueError(f"Metric {name!r}: {error}") from error


def _report_as(name: str, template: object) -> str:
    if template is None:
        return ""
    text = _text(name, "report_as", template)
    try:
        naming.fields_of(text)
    except ValueError as error:
        raise ValueError(
            f"Metric {name!r}: report_as={text!r} is no template ({error}). Allowed in braces: "
            "event, measurement and keys of the metadata, such as '{split}.{measurement}'."
        ) from error
    if not text:
        raise ValueError(f"Metric {name!r}: report_as must not be empty. Leave it out instead.")
    return text


def _text(name: str, option: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(
            f"Metric {name!r}: {option} must be a string, got {value!r} ({type(value).__name__})."
        )
    return value


def _tags(name: str, tags: Any) -> tuple[str, ...]:
    listed = isinstance(tags, Iterable) and not isinstance(tags, str)
    keys: tuple[str, ...] = tuple(tags) if listed else ()
    if not listed or not all(isinstance(key, str) for key in keys):
        raise TypeError(
            f"Metric {name!r}: tags must be a list of keys of the metadata, got {tags!r}. "
            "Write tags=['run_id']."
        )
    if "" in keys:
        raise ValueError(f"Metric {name!r}: tags must not have an empty key, got {tags!r}.")
    return tuple(dict.fromkeys(keys))


def _keep(name: str, options: Options) -> Predicate | None:
    keep, drop = options.get("keep"), options.get("drop")
    if keep is not None and drop is not None:
        raise ValueError(f"Metric {name!r} has both keep and drop. Give one of them.")
    for option, predicate in (("keep", keep), ("drop", drop)):
        if predicate is not None and not _takes_one(predicate):
            raise TypeError(
                f"Metric {name!r}: {option} must be a plain function of the metadata, got "
                f"{predicate!r} ({type(predicate).__name__})."
            )
    return _negated(drop) if drop is not None else keep


def _takes_one(predicate: object) -> bool:
    if not callable(predicate) or inspect.iscoroutinefunction(predicate):
        return False
    try:
        signature = inspect.signature(predicate)
    except (TypeError, ValueError):
        return True  # some builtins do not tell their signature
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _negated(drop: Predicate) -> Callable[[Any], bool]:
    return lambda metadata: not drop(metadata)


def _rate(name: str, rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(
            f"Metric {name!r}: sampling_rate must be a number, got {rate!r} "
            f"({type(rate).__name__}). Allowed: more than 0, at most 1."
        )
    if not 0 < rate <= 1:
        raise ValueError(
            f"Metric {name!r}: sampling_rate must be more than 0 and at most 1, got {rate!r}."
        )
    return float(rate)


def _reduction(name: str, event: Pattern, measurement: str, reduction: Any) -> Reduction | None:
    if reduction is None:
        return None
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Metric {name!r}: reduce must be one of {REDUCTIONS!r}, got {reduction!r}."
        )
    if measurement == ANY:
        raise ValueError(
            f"Metric {name!r} cannot be reduced over ranks: what '*' stands for can differ between "
            "them. Name the measurement."
        )
    if event[: len(BUS)] == BUS:
        raise ValueError(
            f"Metric {name!r} cannot be reduced over ranks: the bus emits the event on the rank "
            "that it is about, and on no other. Leave out reduce."
        )
    checked: Reduction = reduction
    return checked


def _unit(name: str, unit: Any) -> tuple[str, str] | None:
    """The units measured in ("" where the catalogue knows) and reported in."""
    if unit is None:
        return None
    if unit == "" or (isinstance(unit, tuple) and unit[-1:] == ("",)):
        raise ValueError(
            f"Metric {name!r}: the reported unit must not be empty, got unit={unit!r}. "
            "Leave unit out instead."
        )
    match unit:
        case str():
            return "", unit
        case (str() as measured, str() as reported):
            return measured, reported
    raise TypeError(
        f"Metric {name!r}: unit must be a string or a pair of strings (measured in, reported in), "
        f"got {unit!r} ({type(unit).__name__})."
    )


def _buckets(name: str, buckets: Any) -> tuple[float, ...]:
    try:
        bounds = tuple(buckets)
    except TypeError:
        bounds = (None,)
    if not all(map(_is_finite, bounds)) or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(
            f"Metric {name!r}: buckets must be a list of finite numbers, each above the one "
            f"before, got {buckets!r}."
        )
    return tuple(map(float, bounds))


def _is_finite(bound: Any) -> bool:
    # Real and not float: numpy's numbers too.
    return not isinstance(bound, bool) and isinstance(bound, Real) and isfinite(bound)
