"""A clipper's state as plain JSON data, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from clipping.host import HOST
from clipping.memory import Held, convert
from clipping.records import State, Window

FORMAT: Final = 1
FIELDS: Final = ("format", "algo", "scope", "keys", "steps", "thresholds", "counts", "norms")


def dump(algo: str, scope: str, held: Held | None) -> dict[str, Any]:
    """Describe what a clipper holds; `None` is a clipper that has not seen a step."""
    described: dict[str, Any] = {"format": FORMAT, "algo": algo, "scope": scope}
    if held is None:
        return described | {"keys": [], "steps": 0, "thresholds": [], "counts": [], "norms": []}
    state = convert(held.state, held.ops.to_host)
    ring, counts = state.window
    return described | {
        "keys": [list(key) for key in held.keys],
        "steps": int(state.steps),
        "thresholds": [None if math.isinf(t) else t for t in state.threshold.tolist()],
        "counts": counts.tolist(),
        "norms": [
            row[_slots(count, len(row))].tolist() for row, count in zip(ring, counts, strict=True)
        ],
    }


def load(state: object, algo: str, scope: str, size: int) -> Held | None:
    """Rebuild what a clipper held.

    Args:
        state: What `dump` gave.
        algo: The algorithm that it must be of.
        scope: The scope that it must be of.
        size: How many norms of each group the new owner remembers.

    Raises:
        TypeError: It is no mapping.
        ValueError: It is of something else, or damaged.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A clipper's state must be a mapping, got {state!r} ({type(state).__name__}). "
            "Give what state_dict() returned."
        )
    _check_fields(state)
    for name, expected in (("format", FORMAT), ("algo", algo), ("scope", scope)):
        _require(state[name] == expected, name, state[name], f"{expected!r} here")
    _check_values(state)
    if not state["keys"]:
        return None
    return Held(HOST, tuple(tuple(key) for key in state["keys"]), _rebuild(state, size))


def _rebuild(state: Mapping[str, Any], size: int) -> State:
    groups = len(state["keys"])
    ring, counts = np.zeros((groups, size)), np.zeros(groups, np.int64)
    for group, (count, norms) in enumerate(zip(state["counts"], state["norms"], strict=True)):
        # A longer window than before has empty slots again, so it counts what it has.
        counts[group] = count if len(norms) >= min(count, size) else len(norms)
        slots = _slots(int(counts[group]), size)
        ring[group, slots] = norms[len(norms) - len(slots) :]
    thresholds = [math.inf if t is None else t for t in state["thresholds"]]
    return State(np.array(state["steps"], np.int64), np.array(thresholds), Window(ring, counts))


def _slots(count: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the norms of a ring are, the oldest first."""
    return np.arange(max(count - size, 0), count) % size


def _check_fields(state: Mapping[str, Any]) -> None:
    missing = [name for name in FIELDS if name not in state]
    unknown = [name for name in state if name not in FIELDS]
    if missing or unknown:
        raise ValueError(
            f"This is no clipper's state: missing {missing!r}, unknown {unknown!r}. "
            f"Allowed: exactly {list(FIELDS)!r}, as state_dict() returns them."
        )


def _check_values(state: Mapping[str, Any]) -> None:
    steps = state["steps"]
    _require(_is_count(steps), "steps", steps, "an integer of at least 0")
    _require(_all(_is_key, state["keys"]), "keys", state["keys"], "a list of lists of strings")
    groups = len(state["keys"])
    for name, fits, what in (
        ("thresholds", _is_threshold, "numbers of at least 0 or None"),
        (
            "counts",
            lambda count: _is_count(count) and count <= steps,
            f"integers from 0 to {steps}",
        ),
        ("norms", lambda norms: _all(_is_norm, norms), "lists of finite numbers of at least 0"),
    ):
        value = state[name]
        _require(_all(fits, value) and len(value) == groups, name, value, f"{groups} {what}")
    for count, norms in zip(state["counts"], state["norms"], strict=True):
        matches = len(norms) <= count and bool(norms) == bool(count)
        _require(matches, "norms", norms, f"1 to {count} numbers" if count else "empty")


def _require(fits: bool, name: str, value: object, allowed: str) -> None:
    if not fits:
        raise ValueError(
            f"This state cannot be loaded: {name!r} is {_short(value)}, it must be {allowed}. "
            "Nothing was changed."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"  # noqa: PLR2004 -- a line's length


def _all(fits: Callable[[Any], bool], values: object) -> bool:
    return isinstance(values, list) and all(map(fits, values))


def _is_key(key: object) -> bool:
    return isinstance(key, list | tuple) and all(isinstance(part, str) for part in key)


def _is_count(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and value >= 0


def _is_norm(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _is_threshold(value: object) -> bool:
    return value is None or _is_norm(value)
