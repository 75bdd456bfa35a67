"""What the bus and its helpers refuse of what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, cast

from telemetry.records import EventName
from telemetry.values.jsonable import bounded_repr


def check_mapping(event: EventName, what: str, value: object) -> None:
    """Raise TypeError for measurements or metadata of an event that are no mapping."""
    if not _is_a(Mapping, value):
        raise TypeError(
            f"{what} of event {event!r} must be a mapping, got {bounded_repr(value)} "
            f"({type(value).__name__}). Write {{'name': value}}."
        )


def check_name(what: str, name: object) -> str:
    """Return a name, or raise.

    Raises:
        TypeError: It is no string.
        ValueError: It is empty.

    Example:
        >>> check_name("workflow", "digits")
        'digits'
    """
    if not _is_a(str, name):
        raise TypeError(
            f"{what} must be a string, got {bounded_repr(name)} ({type(name).__name__})."
        )
    if not name:
        raise ValueError(f"{what} must not be empty.")
    return cast("str", name)


def check_count(what: str, value: object, *, least: int = 0) -> None:
    """Raise for what cannot be a count; a scalar of an array library is not read.

    Args:
        what: As the user knows it, such as ``"step"``.
        value: An integer, a float that is whole, or a 0-d array or tensor.
        least: The smallest that is allowed.

    Raises:
        TypeError: It is no number.
        ValueError: It is too small, or not whole.

    Example:
        >>> check_count("step", 3)
        >>> check_count("step", "three")
        Traceback (most recent call last):
        TypeError: step must be a whole number of at least 0, got 'three' (str).
    """
    if type(value) is int:
        if value >= least:
            return
        wrong: type[Exception] = ValueError
    elif type(value) is bool or not is_number(value):
        wrong = TypeError
    elif not _is_a(Real, value) or _is_whole(value, least):
        return
    else:
        wrong = ValueError
    raise wrong(
        f"{what} must be a whole number of at least {least}, "
        f"got {bounded_repr(value)} ({type(value).__name__})."
    )


def is_number(value: Any) -> bool:
    """Whether it is a number, or a 0-d array or tensor, which is not read.

    Example:
        >>> is_number(3.5), is_number("3.5")
        (True, False)
    """
    if _is_a(Real, value):
        return True
    try:
        return hasattr(value, "dtype") and len(value.shape) == 0
    except Exception:
        return False  # a symbolic tensor without a rank, or no tensor at all


def _is_whole(value: Any, least: int) -> bool:
    try:
        return bool(value >= least and int(value) == value)
    except Exception:
        return False  # NaN, an infinity, or a number that cannot be compared


def _is_a(kind: type, value: object) -> bool:
    try:
        return isinstance(value, kind)
    except Exception:
        return False  # a proxy that stands for nothing yet cannot even tell its class
