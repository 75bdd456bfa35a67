"""The line that the console prints for an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from handlers.text import duration_text, error_text, name_text, shorten, value_text
from telemetry import EventName

MAX_LINE: Final = 1000

Values: TypeAlias = Mapping[str, Any]

GOOD: Final = "green"
BAD: Final = "red"
NOTABLE: Final = "yellow"
_SEVERITIES: Final = {"critical": BAD, "error": BAD, "info": "cyan"}
_CLOCKS: Final = frozenset({"system_time", "monotonic_time"})
_MARKS: Final = frozenset({"telemetry_span_context", "stacktrace", "kind", "reason"})
_SHOWN: Final = (str, int, float, tuple)


class Line(NamedTuple):
    """A line and the colour it has on a terminal."""

    text: str
    colour: str = ""


def line_of(event: EventName, measurements: Values, metadata: Values) -> Line:
    """Say an event in one line of at most 1000 characters, all of them printable.

    Example:
        >>> line_of(("training", "step"), {"loss": 2.5432, "lr": 2e-4}, {"step": 1}).text
        'Step 1 | loss=2.5432 | lr=0.0002'
    """
    special = _LINES.get(event)
    if special is not None:
        line = special(measurements, metadata)
    elif event[-1] == "exception":
        line = Line(f"{_name(event[:-1])} {_failure(measurements, metadata)}", BAD)
    else:
        line = Line(_join(_name(event), *fields(measurements), *_notes(metadata)))
    return Line(shorten(line.text, MAX_LINE), line.colour)


def fields(measurements: Values) -> list[str]:
    """``name=value`` of each measurement that is not a reading of a clock."""
    return [
        f"{name}={_measured(name, value)}"
        for name, value in _named(measurements)
        if name not in _CLOCKS
    ]


def _named(values: Values) -> list[tuple[str, object]]:
    return [(name_text(name), value) for name, value in values.items()]


def _measured(name: str, value: object) -> str:
    return duration_text(value) if name == "duration" else value_text(value)


def _notes(metadata: Values) -> list[str]:
    return [
        f"{name}={value_text(value)}"
        for name, value in _named(metadata)
        if name not in _MARKS and issubclass(type(value), _SHOWN)
    ]


def _name(event: EventName) -> str:
    return ".".join(map(name_text, event))


def _join(*parts: str) -> str:
    return " | ".join(parts)


def _said(metadata: Values, key: str, before: str = " ") -> str:
    """A value of the metadata, with what comes before it; nothing if it is not there."""
    value = metadata.get(key)
    return "" if value is None else before + value_text(value)


def _count(what: str, metadata: Values, key: str, total: str) -> str:
    return what + _said(metadata, key) + (_said(metadata, total, "/") if key in metadata else "")


def _took(measurements: Values, word: str) -> str:
    return (
        f" {word} {duration_text(measurements['duration'])}" if "duration" in measurements else ""
    )


def _failure(measurements: Values, metadata: Values) -> str:
    error = metadata.get("reason", metadata.get("error"))
    cause = "" if error is None else f": {error_text(error)}"
    return f"failed{_took(measurements, 'after')}{cause}"


def _workflow_start(_: Values, metadata: Values) -> Line:
    return Line("Workflow started" + _said(metadata, "workflow", ": "))


def _workflow_stop(measurements: Values, _: Values) -> Line:
    return Line("Workflow completed" + _took(measurements, "in"), GOOD)


def _workflow_exception(measurements: Values, metadata: Values) -> Line:
    return Line(f"Workflow {_failure(measurements, metadata)}", BAD)


def _stage_start(_: Values, metadata: Values) -> Line:
    return Line("Stage started" + _said(metadata, "stage", ": "))


def _stage_stop(measurements: Values, metadata: Values) -> Line:
    if metadata.get("success") is False:
        return _stage_exception(measurements, metadata)
    return Line(f"Stage{_said(metadata, 'stage')} completed{_took(measurements, 'in')}", GOOD)


def _stage_exception(measurements: Values, metadata: Values) -> Line:
    return Line(f"Stage{_said(metadata, 'stage')} {_failure(measurements, metadata)}", BAD)


def _step(measurements: Values, metadata: Values) -> Line:
    return Line(_join(_count("Step", metadata, "step", "total_steps"), *fields(measurements)))


def _epoch(measurements: Values, metadata: Values) -> Line:
    epoch = _count("Epoch", metadata, "epoch", "total_epochs")
    return Line(_join(f"{epoch} complete", *fields(measurements)), "cyan")


def _checkpoint(_: Values, metadata: Values) -> Line:
    key = "checkpoint_name" if "checkpoint_name" in metadata else "path"
    return Line("Checkpoint saved" + _said(metadata, key, ": "), "cyan")


def _eval(measurements: Values, metadata: Values) -> Line:
    step = _said(metadata, "step", " (step ")
    text = _join("Eval" + _said(metadata, "split"), *fields(measurements))
    return Line(text + (f"{step})" if step else ""), "cyan")


def _eval_complete(measurements: Values, metadata: Values) -> Line:
    return Line(_join("Eval complete" + _said(metadata, "model", ": "), *fields(measurements)))


def _model(_: Values, metadata: Values) -> Line:
    return Line("Model registered" + _said(metadata, "name", ": ") + _said(metadata, "version"))


def _dataset(measurements: Values, metadata: Values) -> Line:
    return Line(_join("Dataset loaded" + _said(metadata, "name", ": "), *fields(measurements)))


def _rl_step(measurements: Values, metadata: Values) -> Line:
    return Line(_join("RL step" + _said(metadata, "step"), *fields(measurements)))


def _alert_raised(measurements: Values, metadata: Values) -> Line:
    severity = _said(metadata, "severity", " (") + (")" if "severity" in metadata else "")
    rule = _said(metadata, "rule", ": ")
    parts = fields(measurements) + [_said(metadata, "message", "")] * ("message" in metadata)
    colour = _SEVERITIES.get(_said(metadata, "severity", ""), NOTABLE)
    return Line(_join(f"Alert raised{severity}{rule}", *parts), colour)


def _alert_cleared(measurements: Values, metadata: Values) -> Line:
    severity = _said(metadata, "severity", " (") + (")" if "severity" in metadata else "")
    rule = _said(metadata, "rule", ": ")
    parts = fields(measurements) + [_said(metadata, "message", "")] * ("message" in metadata)
    return Line(_join(f"Alert cleared{severity}{rule}", *parts), GOOD)


def _handler_failure(_: Values, metadata: Values) -> Line:
    event = metadata.get("event_name")
    where = f" on {_name(event)}" if type(event) is tuple else ""
    handler = _said(metadata, "handler_id")
    return Line(f"Handler{handler} failed{where}: {error_text(metadata.get('reason'))}", BAD)


def _probe_failure(_: Values, metadata: Values) -> Line:
    return Line(
        f"Probe{_said(metadata, 'probe')} failed: {error_text(metadata.get('reason'))}", BAD
    )


def _handler_overflow(measurements: Values, metadata: Values) -> Line:
    dropped = value_text(measurements.get("dropped"))
    handler, policy = _said(metadata, "handler_id"), _said(metadata, "policy", "")
    return Line(f"Handler{handler} lost {dropped} events ({policy})", NOTABLE)


_LINES: Final[dict[EventName, Callable[[Values, Values], Line]]] = {
    ("workflow", "run", "start"): _workflow_start,
    ("workflow", "run", "stop"): _workflow_stop,
    ("workflow", "run", "exception"): _workflow_exception,
    ("stage", "run", "start"): _stage_start,
    ("stage", "run", "stop"): _stage_stop,
    ("stage", "run", "exception"): _stage_exception,
    ("training", "step"): _step,
    ("training", "epoch"): _epoch,
    ("training", "checkpoint"): _checkpoint,
    ("training", "eval"): _eval,
    ("eval", "complete"): _eval_complete,
    ("model", "registered"): _model,
    ("dataset", "load"): _dataset,
    ("rl", "step"): _rl_step,
    ("alert", "raised"): _alert_raised,
    ("alert", "cleared"): _alert_cleared,
    ("telemetry", "handler", "failure"): _handler_failure,
    ("telemetry", "handler", "overflow"): _handler_overflow,
    ("telemetry", "probe", "failure"): _probe_failure,
}
