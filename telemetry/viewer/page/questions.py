"""What a page asks for, read from an address and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from telemetry.viewer.frames.smoothing import MODES
from telemetry.viewer.page.axes import AXES, Axes
from telemetry.viewer.page.drawing import Look

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

FEWEST_POINTS: Final = 50
MOST_POINTS: Final = 4000
WIDEST: Final = 100_000


class QuestionError(ValueError):
    """What was asked for cannot be answered."""


def look_of(query: QueryParams) -> Look:
    """How curves are looked at.

    Raises:
        QuestionError: A value is not allowed.
    """
    return Look(
        axis=_one_of(query, "axis", AXES),
        start=_number(query, "from", -math.inf),
        end=_number(query, "to", math.inf),
        points=whole(query, "points", 1000, FEWEST_POINTS, MOST_POINTS),
        window=whole(query, "smooth", 1, 0, WIDEST),
        mode=_one_of(query, "mode", MODES),  # type: ignore[arg-type] # one of its values
    )


def in_units(look: Look, axes: Axes) -> Look:
    """A look whose stretch is told in the axis's unit; the page tells times in seconds."""
    unit = axes.unit_on(look.axis).seconds
    return look._replace(start=look.start / unit, end=look.end / unit)


def runs_of(query: QueryParams, count: int) -> Sequence[int]:
    """The numbers of the runs, all of them if none is named; one that is not there is left out.

    Raises:
        QuestionError: One is no number.
    """
    named = query.getlist("run")
    try:
        numbers = [int(each) for each in named] if named else range(count)
    except ValueError as error:
        raise QuestionError(f"run must be the number of a run, got {named!r}.") from error
    return [number for number in numbers if 0 <= number < count]


def whole(query: QueryParams, name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number, brought into its limits.

    Raises:
        QuestionError: It is none.
    """
    text = query.get(name)
    try:
        return default if text is None else min(max(int(text), lowest), highest)
    except ValueError as error:
        raise QuestionError(f"{name} must be a whole number, got {text!r}.") from error


def _number(query: QueryParams, name: str, default: float) -> float:
    text = query.get(name)
    try:
        number = default if text is None else float(text)
    except ValueError as error:
        raise QuestionError(f"{name} must be a number, got {text!r}.") from error
    return default if math.isnan(number) else number


def _one_of(query: QueryParams, name: str, allowed: Sequence[str]) -> str:
    value = query.get(name, allowed[0])
    if value not in allowed:
        raise QuestionError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    return value
