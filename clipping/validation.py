"""Checks of what a constructor is given; every error names the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def check_choice(owner: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError for what is none of a few strings."""
    if not isinstance(value, str) or value not in allowed:
        options = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"{owner}: {name} must be one of {options}, got {value!r}.")


def check_flag(owner: str, name: str, value: object) -> None:
    """Raise TypeError for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(
            f"{owner}: {name} must be True or False, got {value!r} ({type(value).__name__})."
        )


def check_count(owner: str, name: str, value: Any, least: int) -> None:
    """Raise TypeError for what is no integer, ValueError for one that is too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{owner}: {name} must be an integer, got {value!r} ({type(value).__name__})."
        )
    if int(value) < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {value!r}.")


def check_number(owner: str, name: str, value: Any, interval: str) -> None:
    """Raise TypeError for what is no real number, ValueError for one outside an interval.

    Args:
        owner: The class.
        name: The argument.
        value: What was given.
        interval: Such as ``"(0, 100]"``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner}: {name} must be a number in {interval}, got {value!r} "
            f"({type(value).__name__})."
        )
    if not _within(float(value), interval):
        raise ValueError(f"{owner}: {name} must be in {interval}, got {value!r}.")


def _within(value: float, interval: str) -> bool:
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below and not math.isnan(value)
