"""What is wrong with a rule."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, Final, NamedTuple

from telemetry.alerts.subject import resolve

CONDITIONS: Final = ("above", "below", "outside", "drop", "spike", "nonfinite", "stalled")
SEVERITIES: Final = ("critical", "error", "warning", "info")
MAX_WINDOW: Final = 10_000
LIMITS: Final = ("above", "below", "outside", "nonfinite")
"""Conditions that need no values before."""


class Problem(NamedTuple):
    """One thing that is wrong."""

    field: str
    kind: type[Exception]
    text: str


def first_problem(values: Mapping[str, Any]) -> Problem | None:
    """What is wrong with the arguments of a rule; None if it can be made.

    Example:
        >>> first_problem({"name": "kl", "metric": "rl.kl_divergence", "above": "0.1"}).text
        "Rule 'kl': above must be a number, got '0.1' (str)."
    """
    rule = {**_DEFAULTS, **values}
    for check in (_named, _typed, _one_condition, _possible, _hysteresis, _together, _known):
        for field, kind, text in check(rule):
            about = f"Rule {rule['name']!r}" if isinstance(rule["name"], str) else "Rule"
            return Problem(field, kind, f"{about}{text}")
    return None


_DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("name", "metric", *CONDITIONS, "share", "clear", "where", "message")),
    "nonfinite": False,
    "for_steps": 1,
    "window": 100,
    "cooldown": 0.0,
    "severity": "critical",
}


def _named(rule: Mapping[str, Any]) -> Iterator[Problem]:
    for field in ("name", "metric", "message"):
        value = rule[field]
        if field == "message" and value is None:
            continue
        if not isinstance(value, str):
            yield _wrong(field, "a string", value)
        elif not value:
            yield Problem(field, ValueError, f": {field} must not be empty.")


def _typed(rule: Mapping[str, Any]) -> Iterator[Problem]:
    for field in ("above", "below", "drop", "spike", "stalled", "share", "cooldown"):
        if rule[field] is not None:
            yield from _number(field, rule[field])
    for field in ("for_steps", "window"):
        value = rule[field]
        if isinstance(value, bool) or not isinstance(value, int):
            yield _wrong(field, "a whole number", value)
    if rule["outside"] is not None:
        yield from _range("outside", rule["outside"])
    if rule["clear"] is not None:
        is_range = rule["outside"] is not None and rule["share"] is None
        yield from (_range if is_range else _number)("clear", rule["clear"])
    if not isinstance(rule["nonfinite"], bool):
        yield _wrong("nonfinite", "True or False", rule["nonfinite"])
    yield from _severity(rule["severity"])
    yield from _where(rule["where"])


def _severity(value: object) -> Iterator[Problem]:
    if value in SEVERITIES:
        return
    near = difflib.get_close_matches(str(value).lower(), SEVERITIES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    allowed = ", ".join(map(repr, SEVERITIES))
    text = f": severity must be one of {allowed}, got {value!r}.{hint}"
    yield Problem("severity", ValueError, text)


def _where(where: object) -> Iterator[Problem]:
    if where is None:
        return
    if not isinstance(where, Mapping) or not all(isinstance(key, str) for key in where):
        yield _wrong("where", "a mapping of metadata, such as {'split': 'val'}", where)
        return
    for key, value in where.items():
        if not isinstance(value, str | int | float | None):
            yield _wrong(f"where[{key!r}]", "a string, a number, a boolean or None", value)


def _number(field: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, Real):
        yield _wrong(field, "a number", value)
    elif not _is_finite(value):
        yield Problem(field, ValueError, f": {field} must be a finite number, got {value!r}.")


def _range(field: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:  # noqa: PLR2004 -- a pair
        yield _wrong(field, "a pair of numbers (low, high)", value)
        return
    for end in value:
        yield from _number(field, end)
    if value[0] > value[1]:
        text = f": {field} is {value!r}, a range in which nothing is. Write (low, high)."
        yield Problem(field, ValueError, text)


def _one_condition(rule: Mapping[str, Any]) -> Iterator[Problem]:
    given = _given(rule)
    if not given:
        text = f" has no condition. Give one of: {', '.join(CONDITIONS)}."
        yield Problem("name", ValueError, text)
    elif len(given) > 1:
        said = " and ".join(f"{field}={rule[field]!r}" for field in given)
        text = f" has {len(given)} conditions: {said}. Give one; several make several rules."
        if given == ["above", "below"]:
            text = f" has 2 conditions: {said}. Give one; for a range write outside=(low, high)."
        yield Problem(given[1], ValueError, text)


def _possible(rule: Mapping[str, Any]) -> Iterator[Problem]:
    for field, least, what in (("for_steps", 1, "1"), ("window", 1, "1"), ("cooldown", 0, "0")):
        if rule[field] < least:
            text = f": {field} must be at least {what}, got {rule[field]!r}."
            yield Problem(field, ValueError, text)
    if rule["window"] > MAX_WINDOW:
        text = f": window must be at most {MAX_WINDOW}, got {rule['window']!r}."
        yield Problem("window", ValueError, text)
    drop, spike, stalled, share = (rule[key] for key in ("drop", "spike", "stalled", "share"))
    for field, fits, allowed in (
        ("drop", drop is None or 0 < drop < 1, "more than 0 and less than 1: 0.5 is half"),
        ("spike", spike is None or spike > 1, "a factor of more than 1"),
        ("stalled", stalled is None or stalled > 0, "more than 0 seconds"),
        ("share", share is None or 0 <= share < 1, "at least 0 and less than 1: 0.5 is half"),
    ):
        if not fits:
            text = f": {field} must be {allowed}, got {rule[field]!r}."
            yield Problem(field, ValueError, text)


def _hysteresis(rule: Mapping[str, Any]) -> Iterator[Problem]:
    clear = rule["clear"]
    (condition,) = _given(rule) if rule["share"] is None else ("share",)
    if clear is None:
        return
    fits, allowed = _clears(condition, rule[condition], clear)
    if not fits:
        text = f": clear must be {allowed}, got {clear!r}. It says where the alert is over."
        yield Problem("clear", ValueError, text)


def _clears(condition: str, limit: Any, clear: Any) -> tuple[bool, str]:
    """Whether an alert can be over there, and where it can."""
    match condition:
        case "above":
            return clear <= limit, f"at most the limit {limit!r}"
        case "below":
            return clear >= limit, f"at least the limit {limit!r}"
        case "outside":
            within = limit[0] <= clear[0] and clear[1] <= limit[1]
            return within, f"a range within {limit!r}"
        case "drop" | "share":
            return 0 <= clear <= limit, f"a share of at least 0 and at most {limit!r}"
        case "spike":
            return 1 <= clear <= limit, f"a factor of at least 1 and at most {limit!r}"
        case _:
            return False, f"left out with {condition}"


def _together(rule: Mapping[str, Any]) -> Iterator[Problem]:
    (condition,) = _given(rule)
    if rule["share"] is not None and condition not in LIMITS:
        text = f" has share and {condition}. A share goes with one of: {', '.join(LIMITS)}."
        yield Problem("share", ValueError, text)
    if rule["for_steps"] > 1 and (rule["share"] is not None or condition == "stalled"):
        other = "stalled" if condition == "stalled" else "share"
        yield Problem("for_steps", ValueError, f" has for_steps and {other}. Give one of them.")


def _known(rule: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        resolve(rule["metric"], stalled=rule["stalled"] is not None)
    except ValueError as error:
        yield Problem("metric", ValueError, f": {error}")


def _given(rule: Mapping[str, Any]) -> list[str]:
    return [field for field in CONDITIONS if rule[field] is not None and rule[field] is not False]


def _wrong(field: str, allowed: str, value: object) -> Problem:
    text = f": {field} must be {allowed}, got {value!r} ({type(value).__name__})."
    return Problem(field, TypeError, text)


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except OverflowError:
        return False
