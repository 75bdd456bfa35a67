"""What is refused when a handler is attached, so that it cannot fail later in the training loop."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable
from typing import get_args

from telemetry.names import check_pattern
from telemetry.records import OnFailure, Pattern


def check_handler_id(handler_id: object) -> None:
    """Raise TypeError for an id that cannot be looked up."""
    try:
        hash(handler_id)
    except TypeError as unhashable:
        raise TypeError(
            f"Handler id must be hashable, got {handler_id!r} ({type(handler_id).__name__}). "
            "Use a string."
        ) from unhashable


def check_patterns(events: object) -> tuple[Pattern, ...]:
    """Return the patterns, each once, or raise as `names.check_pattern` does."""
    if isinstance(events, str) or not isinstance(events, Iterable):
        raise TypeError(
            f"Events must be a list of tuples of strings, got {events!r} "
            f"({type(events).__name__}). Write [('training', 'step')]."
        )
    given = tuple(events)
    if isinstance(events, tuple) and given and all(isinstance(event, str) for event in given):
        raise TypeError(
            f"Events must be a list of tuples of strings, got the single event {events!r}. "
            f"Write [{events!r}], or use attach()."
        )
    patterns = tuple(dict.fromkeys(check_pattern(event) for event in given))
    if not patterns:
        raise ValueError(
            "Events must not be empty: the handler would never be called. "
            "Write [telemetry.ALL] to hear everything."
        )
    return patterns


def check_function(function: object, handler_id: Hashable) -> None:
    """Raise TypeError for what cannot be called with the four arguments of a handler."""
    if not callable(function):
        raise TypeError(
            f"Handler {handler_id!r} must be a function, got {function!r} "
            f"({type(function).__name__}). "
            "It is called as function(event, measurements, metadata, config)."
        )
    if _runs_later(function) or _runs_later(getattr(function, "__call__", None)):  # noqa: B004 -- the bound method is inspected
        raise TypeError(
            f"Handler {handler_id!r} is {function!r}, whose body would not run when it is called. "
            "Handlers are called in the emitter's thread and not awaited: give a plain function."
        )
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # some builtins do not tell their signature
    try:
        signature.bind(None, None, None, None)
    except TypeError as mismatch:
        raise TypeError(
            f"Handler {handler_id!r} is {function!r} with signature {signature}, which cannot take "
            f"the four arguments (event, measurements, metadata, config): {mismatch}."
        ) from mismatch


def check_on_failure(on_failure: object) -> None:
    """Raise ValueError for a policy that does not exist."""
    allowed = get_args(OnFailure)
    if on_failure not in allowed:
        raise ValueError(f"on_failure must be one of {allowed!r}, got {on_failure!r}.")


def _runs_later(function: object) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    )
