"""A clipper's state as plain JSON data, and the checks of what somebody loads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from clipping.memory import Saved

FORMAT: Final = 1
HEAD: Final = ("format", "algo", "scope", "keys", "steps")


class Column(NamedTuple):
    """What is saved for each row.

    Attributes:
        fits: Whether a value may stand there.
        what: What may, in words.
        optional: Whether the column may be missing.
    """

    fits: Callable[[Any], bool]
    what: str
    optional: bool = False


def head(algo: str, scope: str) -> dict[str, Any]:
    """What every state begins with."""
    return {"format": FORMAT, "algo": algo, "scope": scope}


def checked(
    state: object, algo: str, scope: str, columns: Callable[[int], Mapping[str, Column]]
) -> Saved | None:
    """Hold a state against what a clipper can load.

    Args:
        state: What ``state_dict()`` gave.
        algo: The algorithm that it must be of.
        scope: The scope that it must be of.
        columns: From a number of steps to what must be in it for each row.

    Returns:
        The state, or None if it is that of a clipper that has not seen a step.

    Raises:
        TypeError: It is no mapping.
        ValueError: It is of something else, or damaged.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A clipper's state must be a mapping, got {state!r} ({type(state).__name__}). "
            "Give what state_dict() returned."
        )
    _check_algo(state, algo)
    _check_fields(state, columns(0))
    for name, expected in (("format", FORMAT), ("algo", algo), ("scope", scope)):
        require(state[name] == expected, name, state[name], f"{expected!r} here")
    steps, keys = state["steps"], state["keys"]
    require(is_count(steps), "steps", steps, "an integer of at least 0")
    require(_all(_is_key, keys), "keys", keys, "a list of lists of strings")
    expected_columns = columns(steps)
    for name, column in expected_columns.items():
        if name in state:
            values = state[name]
            fits = _all(column.fits, values) and len(values) == len(keys)
            require(fits, name, values, f"{len(keys)} {column.what}")
    if not keys:
        return None
    return Saved(
        tuple(tuple(key) for key in keys),
        int(steps),
        {name: list(state[name]) for name in expected_columns if name in state},
    )


def require(fits: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError for what cannot be loaded."""
    if not fits:
        raise ValueError(
            f"This state cannot be loaded: {name!r} is {_short(value)}, it must be {allowed}. "
            "Nothing was changed."
        )


def is_count(value: object) -> bool:
    """Whether a value is an integer of at least 0."""
    return not isinstance(value, bool) and isinstance(value, int) and value >= 0


def is_norm(value: object) -> bool:
    """Whether a value is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= sys.float_info.max


def is_threshold(value: object) -> bool:
    """Whether a value is a threshold; None is infinity."""
    return value is None or is_norm(value)


THRESHOLDS: Final = Column(is_threshold, "numbers of at least 0 or None")


def counts(steps: int) -> Column:
    """Numbers of norms, of which no row can have more than there were steps."""
    return Column(lambda n: is_count(n) and n <= steps, f"integers from 0 to {steps}")


def _check_algo(state: Mapping[str, Any], algo: str) -> None:
    if isinstance(state.get("algo"), str):
        require(state["algo"] == algo, "algo", state["algo"], f"{algo!r} here")


def _check_fields(state: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    required = [*HEAD, *(name for name, column in columns.items() if not column.optional)]
    missing = [name for name in required if name not in state]
    unknown = [name for name in state if name not in HEAD and name not in columns]
    if missing or unknown:
        raise ValueError(
            f"This is no clipper's state: missing {missing!r}, unknown {unknown!r}. "
            f"Allowed: exactly {required!r}, as state_dict() returns them."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"  # noqa: PLR2004 -- a line's length


def _all(fits: Callable[[Any], bool], values: object) -> bool:
    return isinstance(values, list) and all(map(fits, values))


def _is_key(key: object) -> bool:
    return isinstance(key, list | tuple) and all(isinstance(part, str) for part in key)
