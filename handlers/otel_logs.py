"""Events as log records of OpenTelemetry, which have an event's name and time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from handlers.otel_attributes import CAUSE, attributes_of, exception_attributes, nanoseconds
from handlers.records import TimedEvent
from telemetry import EventName, Pattern, Registry
from telemetry.events import find

EACH_STEP: Final = frozenset({("training", "step"), ("rl", "step")})
MAX_NAMES: Final = 4096

_SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_LEVELS: Final[dict[EventName, str]] = {
    ("alert", "raised"): "warning",
    ("telemetry", "handler", "failure"): "error",
    ("telemetry", "handler", "overflow"): "warning",
    ("telemetry", "probe", "failure"): "warning",
    ("smartclip", "clip", "nonfinite"): "warning",
}


class Logs:
    """Emits log records.

    Args:
        provider: Gives the logger.
        patterns: Which events become records. By default those of the catalogue that do not come
            at each step, and those that no metric is made of.
    """

    def __init__(self, provider: LoggerProvider, patterns: Iterable[Pattern] | None) -> None:
        self._logger = provider.get_logger("trainbus")
        self._wanted = None if patterns is None else wanted(patterns)
        self._rare: dict[EventName, bool | None] = {}

    def take(self, entry: TimedEvent, *, is_span: bool, is_metric: bool) -> None:
        """Make a record of an event, if it is one of those that become records.

        Args:
            entry: The event.
            is_span: Whether it has begun or ended a span.
            is_metric: Whether a metric was made of it.
        """
        if self._wanted is not None:
            logged = self._wanted.enabled(entry.event)
        elif is_span:
            logged = False
        else:
            rare = self._is_rare(entry.event)
            logged = not is_metric if rare is None else rare
        if logged:
            self._emit(entry)

    def _is_rare(self, event: EventName) -> bool | None:
        """Whether an event of the catalogue is worth a record; None if it has no row there."""
        if event not in self._rare:
            if len(self._rare) >= MAX_NAMES:
                self._rare.clear()
            spec = find(event)
            self._rare[event] = None if spec is None else not (spec.detail or event in EACH_STEP)
        return self._rare[event]

    def _emit(self, entry: TimedEvent) -> None:
        cause: Any = {}
        if isinstance(entry.metadata.get("reason"), BaseException):
            cause = exception_attributes(entry.metadata)
        attributes: Any = attributes_of(
            entry.measurements, entry.metadata, cause, without=CAUSE if cause else ()
        )
        name = ".".join(entry.event)
        level = _level(entry)
        self._logger.emit(
            timestamp=nanoseconds(entry.time_ns),
            context=Context(),
            severity_number=_SEVERITIES[level],
            severity_text=_SEVERITIES[level].name,
            body=attributes.get("message", name),
            attributes=attributes,
            event_name=name,
        )


def wanted(patterns: Iterable[Pattern]) -> Registry:
    """A bus on which what matches the patterns is enabled.

    Raises:
        TypeError: One is no tuple of strings.
        ValueError: One is empty or has a bad segment.
    """
    registry = Registry()
    registry.attach_many("wanted", list(patterns), _ignore)
    return registry


def _ignore(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    """Take what nobody emits: only `enabled` is asked."""


def _level(entry: TimedEvent) -> str:
    given = entry.metadata.get("severity")
    if isinstance(given, str) and given.lower() in _SEVERITIES and entry.event[0] == "alert":
        return given.lower() if entry.event[-1] == "raised" else "info"
    if entry.event[-1] == "exception":
        return "error"
    return _LEVELS.get(entry.event, "info")
