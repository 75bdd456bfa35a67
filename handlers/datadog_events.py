"""Which events of the bus are events and service checks of Datadog, and what these say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from handlers.datadog_statements import AlertType, Check, Notice, Status
from handlers.records import TimedEvent
from handlers.text import error_text, name_text, value_text
from telemetry import EventName, Pattern
from telemetry.events import find
from telemetry.events.reported import text as metadata_text
from telemetry.metrics import Sample

DEFAULT_EVENTS: Final[tuple[Pattern, ...]] = (
    ("alert", "raised"),
    ("alert", "cleared"),
    ("workflow", "run", "exception"),
    ("stage", "run", "exception"),
    ("training", "checkpoint"),
    ("model", "registered"),
)
TAGS: Final = ("run_id", "user_id", "workflow", "stage", "rule", "severity", "model", "model_id")
"""Keys of the metadata by which messages are found again."""

_LEVELS: Final[Mapping[str, tuple[AlertType, Status]]] = {
    "info": ("info", "OK"),
    "warning": ("warning", "WARNING"),
    "error": ("error", "CRITICAL"),
    "critical": ("error", "CRITICAL"),
}
_HIDDEN: Final = frozenset({"telemetry_span_context", "stacktrace"})


def messages(entry: TimedEvent) -> Iterator[Notice | Check]:
    """What an event says beyond its numbers.

    An alert is a service check as well, named after what was measured and tagged with its rule.
    """
    if entry.event in (("alert", "raised"), ("alert", "cleared")):
        yield from _alert(entry)
    else:
        title, text, alert_type = _words(entry)
        yield Notice(title, text, alert_type, _tags(entry.metadata), entry.time_ns)


def tags_of(sample: Sample) -> tuple[str, ...]:
    """The tags of a metric's value.

    Example:
        >>> from telemetry.metrics import last_value
        >>> tags_of(Sample(last_value("rl.step.entropy"), "rl.entropy", 1.0, {"run_id": "a"}))
        ('run_id:a',)
    """
    if not sample.tags:
        return ()
    return tuple([f"{key}:{value}" for key, value in sample.tags.items()])


def _alert(entry: TimedEvent) -> Iterator[Notice | Check]:
    metadata = entry.metadata
    raised = entry.event[-1] == "raised"
    severity = _said(metadata, "severity", "warning").lower()
    level, status = _LEVELS.get(severity, _LEVELS["warning"])
    rule = _said(metadata, "rule", "?")
    said = _long(metadata, "message") or _numbers(entry)
    yield Notice(
        f"{'Alert' if raised else 'Alert is over'}: {rule}",
        said,
        level if raised else "success",
        _tags(metadata),
        entry.time_ns,
        aggregation_key=f"alert.{rule}",
    )
    yield Check(
        _check_name(metadata, rule),
        status if raised else "OK",
        said,
        _tags(metadata),
        entry.time_ns,
    )


def _check_name(metadata: Mapping[str, Any], rule: str) -> str:
    """``rl.kl_divergence`` of the metric ``rl.step.kl_divergence``, as its values are named."""
    metric = metadata.get("metric")
    if not isinstance(metric, str) or not metric:
        return f"alert.{rule}"
    *event, measurement = metric.split(".")
    try:
        spec = find(tuple(event)) if event else None
    except ValueError:
        spec = None  # no name of an event, but a name that somebody gave to what is measured
    return spec.reported_name(measurement, metadata) if spec else metric


def _words(entry: TimedEvent) -> tuple[str, str, AlertType]:
    """Title, text and level."""
    metadata = entry.metadata
    match entry.event:
        case (*_, "exception"):
            name = _named(entry.event[:-1], metadata)
            reason = _long(metadata, "error") or error_text(metadata.get("reason", "?"))
            return f"{name} failed", f"{reason}\n{_details(entry)}", "error"
        case ("training", "checkpoint"):
            name = value_text(metadata.get("checkpoint_name", ""))
            return f"Checkpoint {name} was saved", _details(entry), "info"
        case ("model", "registered"):
            name = f"{_said(metadata, 'name', '?')} {_said(metadata, 'version')}".strip()
            return f"Model {name} was registered", _details(entry), "success"
        case _:
            return ".".join(entry.event), _details(entry), "info"


def _named(event: EventName, metadata: Mapping[str, Any]) -> str:
    name = _said(metadata, event[0])
    return f"{event[0]} {name}" if name else ".".join(event)


def _details(entry: TimedEvent) -> str:
    pairs = [*entry.measurements.items(), *entry.metadata.items()]
    return "\n".join(
        f"{name_text(key)}: {value_text(value)}" for key, value in pairs if key not in _HIDDEN
    )


def _numbers(entry: TimedEvent) -> str:
    return ", ".join(
        f"{name_text(key)} {value_text(value)}" for key, value in entry.measurements.items()
    )


def _tags(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """As of the values of metrics, so that they are found together."""
    said = {key: _said(metadata, key) for key in TAGS if metadata.get(key) is not None}
    return tuple(f"{key}:{value}" for key, value in said.items())


def _said(metadata: Mapping[str, Any], key: str, default: str = "") -> str:
    """A word of the metadata, whatever object it is."""
    value = metadata.get(key)
    return default if value is None else metadata_text(value)


def _long(metadata: Mapping[str, Any], key: str) -> str:
    """A text of the metadata, as long as it is."""
    value = metadata.get(key)
    return value if type(value) is str else _said(metadata, key)
