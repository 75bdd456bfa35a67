"""What ``alert.raised`` says, for sinks that have alerts of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from handlers.records import TimedEvent
from telemetry.values import jsonable

Severity: TypeAlias = Literal["error", "warning", "info"]

RAISED: Final = ("alert", "raised")
_SEVERITIES: Final[dict[str, Severity]] = {
    "critical": "error",
    "error": "error",
    "warning": "warning",
}


class Alert(NamedTuple):
    """An alert as a person reads it: valid UTF-8, whatever was emitted."""

    title: str
    text: str
    severity: Severity


def alert_of(entry: TimedEvent) -> Alert | None:
    """The alert that an event raises; None if it raises none.

    The title is the rule, the text its message. ``critical`` and ``error`` are errors, ``warning``
    is a warning, and any other severity is information. Nothing is ever raised.

    Example:
        >>> metadata = {"rule": "kl", "severity": "critical", "message": "kl > 0.1"}
        >>> alert_of(TimedEvent(0, ("alert", "raised"), {"value": 0.2}, metadata))
        Alert(title='kl', text='kl > 0.1', severity='error')
        >>> alert_of(TimedEvent(0, ("alert", "cleared"), {}, metadata))
    """
    if entry.event != RAISED:
        return None
    title = _said(entry.metadata, "rule", "alert")
    severity = _said(entry.metadata, "severity", "").lower()
    return Alert(title, _said(entry.metadata, "message", title), _SEVERITIES.get(severity, "info"))


def _said(metadata: Mapping[str, Any], key: str, otherwise: str) -> str:
    """A value as text without lone surrogates, which nobody can send."""
    value = metadata.get(key)
    if value is None:
        return otherwise
    try:
        shown = str(value)
    except Exception:
        shown = str(jsonable(value))  # metadata can hold anything
    return shown.encode("utf-8", "backslashreplace").decode()
