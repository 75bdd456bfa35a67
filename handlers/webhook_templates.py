"""Messages for people, from templates with fields such as ``{loss:.3f}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Final, NamedTuple, TypeAlias

from handlers.text import error_text, name_text, value_text
from telemetry import EventName
from telemetry.values import to_python

MISSING: Final = "?"
"""What stands for a field that an event does not have."""

Writer: TypeAlias = Callable[[EventName, Mapping[str, Any], Mapping[str, Any]], "str | None"]
"""``writer(event, measurements, metadata)``: the message, or None for no message."""

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_CLOCKS: Final = frozenset({"system_time", "monotonic_time"})
_ERRORS: Final = frozenset({"error", "reason"})


class _Piece(NamedTuple):
    literal: str
    names: tuple[str, ...]
    spec: str


class Template:
    """A text with fields in braces, which are looked up in an event.

    A field is a measurement, a key of the metadata, ``event`` for the dotted name, or
    ``measurements`` for all of them. ``{error|reason}`` is the first of the two that the event has.
    Of a value, no attribute and no item can be asked for.

    Args:
        text: The text. ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: The braces do not match, a field has no name, a conversion, or a format that
            fits no number and no text.

    Example:
        >>> template = Template("Run {workflow} lost {loss:.2f} in {duration}, on {host}")
        >>> template.render(("run",), {"loss": 2.5, "duration": 2_718_000_000_000}, {"workflow": 7})
        'Run 7 lost 2.50 in 45.3 minutes, on ?'
    """

    def __init__(self, text: str) -> None:
        self._pieces = [
            _piece(literal, field, spec, conversion)
            for literal, field, spec, conversion in Formatter().parse(text)
        ]

    def render(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        escape: Callable[[str], str] = str,
    ) -> str:
        """The text for an event; never raises.

        Args:
            event: Its name.
            measurements: Its measurements.
            metadata: Its metadata.
            escape: Makes a value harmless where the text is shown; the template's own text is not
                escaped.
        """
        fields = {
            "event": ".".join(event),
            "measurements": fields_text(measurements),
            **metadata,
            **measurements,
        }
        return "".join(piece.literal + escape(_shown(piece, fields)) for piece in self._pieces)


def fields_text(measurements: Mapping[str, Any]) -> str:
    """All measurements but the clocks.

    Example:
        >>> fields_text({"accuracy": 0.91234, "duration": 1_200_000_000})
        'accuracy=0.91234, duration=1.2 seconds'
    """
    return ", ".join(
        f"{name_text(name)}={_value(name_text(name), value)}"
        for name, value in measurements.items()
        if name not in _CLOCKS
    )


def duration_words(nanoseconds: object) -> str:
    """A duration for people.

    Example:
        >>> [duration_words(seconds * 10**9) for seconds in (12, 2718, 9000)]
        ['12.0 seconds', '45.3 minutes', '2.5 hours']
    """
    number = to_python(nanoseconds)
    if type(number) not in (int, float) or not abs(number) < 2**63:
        return value_text(number)
    seconds = number / 1e9
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} seconds"
    if round(seconds, 1) < _HOUR:
        return f"{seconds / _MINUTE:.1f} minutes"
    return f"{seconds / _HOUR:.1f} hours"


def _piece(literal: str, field: str | None, spec: str | None, conversion: str | None) -> _Piece:
    if field is None:
        return _Piece(literal, (), "")
    names = tuple(name.strip() for name in field.split("|"))
    if conversion or not all(names) or any(name.isdigit() for name in names):
        raise ValueError(
            f"field {{{field}}} must be the name of a measurement or of a key of the metadata, "
            "such as {loss}, {loss:.3f} or {error|reason}"
        )
    if spec and not any(_formats(value, spec) for value in (1, 1.0, "")):
        raise ValueError(f"field {{{field}:{spec}}} has a format that fits no number and no text")
    return _Piece(literal, names, spec or "")


def _formats(value: object, spec: str) -> bool:
    try:
        format(value, spec)
    except ValueError:
        return False
    return True


def _shown(piece: _Piece, fields: Mapping[str, Any]) -> str:
    if not piece.names:
        return ""
    for name in piece.names:
        if fields.get(name) is not None:
            return _formatted(name, fields[name], piece.spec)
    return MISSING


def _formatted(name: str, value: object, spec: str) -> str:
    number = to_python(value)
    # Formats are for the plain types: a value's own __format__ may do anything.
    if spec and type(number) in (int, float, str) and _formats(number, spec):
        return value_text(format(number, spec))
    return _value(name, value)


def _value(name: str, value: object) -> str:
    if name == "duration":
        return duration_words(value)
    return error_text(value) if name in _ERRORS else value_text(value)
