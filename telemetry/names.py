"""Event names and the patterns that match them."""

from __future__ import annotations

from typing import Final

from telemetry.records import EventName, Pattern

ONE: Final = "*"
REST: Final = "**"

ALL: Final[Pattern] = (REST,)
"""The pattern that every event matches."""


def check_event(name: object) -> EventName:
    """Return ``name`` if it is an event name, else raise.

    Raises:
        TypeError: It is no tuple, or a segment is no string.
        ValueError: It is empty, or a segment is empty or has a ``.`` or ``*`` in it.
    """
    segments = _check_tuple(name, "Event name")
    for segment in segments:
        if "*" in segment:
            raise ValueError(
                f"Event name {name!r} has a '*' in segment {segment!r}. "
                "Wildcards are allowed in the patterns given to attach() only."
            )
    return segments


def check_pattern(pattern: object) -> Pattern:
    """Return ``pattern`` if it is an event name or a pattern of names, else raise.

    Raises:
        TypeError: It is no tuple, or a segment is no string.
        ValueError: It is empty, a segment is empty, has a ``.``, or has a ``*`` in a wrong place.
    """
    segments = _check_tuple(pattern, "Event pattern")
    for segment in segments:
        if "*" in segment and segment not in (ONE, REST):
            raise ValueError(
                f"Event pattern {pattern!r} has a '*' inside segment {segment!r}. "
                "A wildcard is a whole segment: '*' for any one, a last '**' for any further ones."
            )
    if REST in segments[:-1]:
        raise ValueError(
            f"Event pattern {pattern!r} has '**' before its end. "
            "'**' is allowed as the last segment only; use '*' for any one segment."
        )
    return segments


def check_prefix(prefix: object) -> EventName:
    """Return ``prefix`` if it is an event name or ``()``, else raise like `check_event`."""
    return () if prefix == () else check_event(prefix)


def matches(pattern: Pattern, event: EventName) -> bool:
    """Whether ``pattern`` matches the whole of ``event``.

    Example:
        >>> matches(("a", "*"), ("a", "b")), matches(("a", "**"), ("a",))
        (True, True)
        >>> matches(("a",), ("a", "b"))
        False
    """
    if pattern[-1] == REST:
        pattern = pattern[:-1]
        event = event[: len(pattern)]
    return len(pattern) == len(event) and all(map(_fits, pattern, event))


def overlaps(pattern: Pattern, prefix: EventName) -> bool:
    """Whether ``pattern`` matches any event name that begins with ``prefix``.

    Example:
        >>> overlaps(("a", "*"), ("a", "b")), overlaps(("a", "**"), ("a", "b", "c"))
        (True, True)
        >>> overlaps(("a", "*"), ("b",)), overlaps(("a",), ("a", "b"))
        (False, False)
    """
    if pattern[-1] == REST:
        return all(map(_fits, pattern[:-1], prefix))
    return len(pattern) >= len(prefix) and all(map(_fits, pattern, prefix))


def _fits(wanted: str, segment: str) -> bool:
    return wanted in (ONE, segment)


def _check_tuple(name: object, what: str) -> tuple[str, ...]:
    if not isinstance(name, tuple):
        hint = ""
        if isinstance(name, str) and name:
            hint = f" Write {tuple(name.replace('/', '.').split('.'))!r}."
        elif isinstance(name, list):
            hint = f" Write {tuple(name)!r}."
        raise TypeError(
            f"{what} must be a tuple of strings, got {name!r} ({type(name).__name__}).{hint}"
        )
    if not name:
        raise ValueError(
            f"{what} must not be empty, got (). "
            "Allowed: a tuple of one or more strings, such as ('training', 'step')."
        )
    for segment in name:
        _check_segment(name, segment, what)
    return name


def _check_segment(name: tuple[object, ...], segment: object, what: str) -> None:
    if not isinstance(segment, str):
        raise TypeError(
            f"{what} {name!r} has segment {segment!r} ({type(segment).__name__}). "
            "Every segment must be a string."
        )
    if not segment:
        raise ValueError(f"{what} {name!r} has an empty segment. Every segment needs a name.")
    if "." in segment:
        raise ValueError(
            f"{what} {name!r} has a '.' in segment {segment!r}. "
            f"Give its parts as segments of their own: {tuple(segment.split('.'))!r}."
        )
