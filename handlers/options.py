"""What is refused before anything is opened: arguments that no handler can be attached with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, get_args

from handlers.lookup import suggestion
from handlers.records import Delivery, Eager, Factory, Overflow, Ranks
from telemetry import ALL, Pattern, Registry, default_registry


def check_options(name: str, factory: Factory, options: dict[str, Any], common: list[str]) -> None:
    """Raise TypeError for an option that the factory does not have, or one that it lacks."""
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    takes_any = len(known) < len(parameters)
    for option in options:
        if option not in known and not takes_any:
            raise TypeError(
                f"Handler {name!r} has no option {option!r}. "
                f"Its options: {', '.join(known) or 'none'}; "
                f"those of all handlers: {', '.join(common)}.{suggestion(option, known + common)}"
            )
    for parameter in parameters:
        required = parameter.default is parameter.empty and parameter.name in known
        if required and parameter.name not in options:
            raise TypeError(
                f"Handler {name!r} needs the option {parameter.name!r}. "
                f"Write handlers.attach({name!r}, {parameter.name}=...)."
            )


def events_of(events: object) -> tuple[Pattern, ...]:
    """The patterns, given as one or as several; they are checked when they are attached."""
    if isinstance(events, tuple) and events and all(isinstance(part, str) for part in events):
        return (events,)
    if isinstance(events, str) or not isinstance(events, Iterable):
        raise TypeError(
            f"events must be a pattern or a list of patterns, got {events!r} "
            f"({type(events).__name__}). Write [('training', 'step')]."
        )
    return tuple(events)


def registry_of(registry: object) -> Registry:
    """The bus that is meant, by default that of the functions of `telemetry`."""
    if registry is None:
        return default_registry
    if not isinstance(registry, Registry):
        raise TypeError(
            f"registry must be a telemetry.Registry, got {registry!r} ({type(registry).__name__}). "
            "Leave it out for the bus of the functions of telemetry."
        )
    return registry


def check_where(where: object) -> None:
    """Raise TypeError for what cannot be called as ``where(event, measurements, metadata)``."""
    if where is None:
        return
    if not callable(where) or inspect.iscoroutinefunction(where):
        raise TypeError(
            f"where must be a plain function where(event, measurements, metadata), got {where!r} "
            f"({type(where).__name__})."
        )
    check_takes_three("where", where)


def check_count(what: str, count: object) -> None:
    """Raise for what is no integer of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(
            f"{what} must be an integer, got {count!r} ({type(count).__name__}). "
            "Allowed: 1 or more."
        )
    if count < 1:
        raise ValueError(f"{what} must be 1 or more, got {count!r}.")


def check_seconds(what: str, seconds: object) -> None:
    """Raise for what is no finite number of seconds above 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(
            f"{what} must be a number of seconds, got {seconds!r} ({type(seconds).__name__})."
        )
    if not (seconds > 0 and isfinite(seconds)):
        raise ValueError(f"{what} must be a finite number of seconds above 0, got {seconds!r}.")


def check_sample(sample: object) -> None:
    """Raise for what is no probability above 0."""
    if isinstance(sample, bool) or not isinstance(sample, int | float):
        raise TypeError(
            f"sample must be a number, got {sample!r} ({type(sample).__name__}). "
            "Allowed: more than 0, at most 1."
        )
    if not 0 < sample <= 1:
        raise ValueError(f"sample must be more than 0 and at most 1, got {sample!r}.")


def check_ranks(ranks: object) -> None:
    """Raise ValueError for a choice that does not exist."""
    _check_choice("ranks", ranks, get_args(Ranks))


def check_delivery(
    background: object, queue_size: object, overflow: object, flush_timeout: object
) -> None:
    """Raise for what no worker can be made with."""
    if not isinstance(background, bool | None):
        raise TypeError(
            f"background must be None (the handler's own choice), True or False, got "
            f"{background!r} ({type(background).__name__})."
        )
    check_count("queue_size", queue_size)
    _check_choice("overflow", overflow, get_args(Overflow))
    if isinstance(flush_timeout, bool) or not isinstance(flush_timeout, int | float):
        raise TypeError(
            f"flush_timeout must be a number of seconds, got {flush_timeout!r} "
            f"({type(flush_timeout).__name__})."
        )
    if not (flush_timeout >= 0 and isfinite(flush_timeout)):
        raise ValueError(
            f"flush_timeout must be a finite number of seconds, 0 or more, got {flush_timeout!r}."
        )


def check_sink(name: str, sink: object) -> None:
    """Raise for what a factory made, if it cannot take events; see `telemetry.attach_many`.

    Behind a filter or a worker, the bus itself would not see its shape.
    """
    if not callable(sink):
        raise TypeError(
            f"The factory of handler {name!r} made {sink!r} ({type(sink).__name__}), which cannot "
            "be called. It must return a sink(event, measurements, metadata, config)."
        )
    Registry().attach(name, ALL, sink)
    if isinstance(sink, Eager):
        Registry().attach(name, ALL, sink.deliver)
    delivery = getattr(sink, "delivery", "ordered")
    _check_choice(f"delivery of handler {name!r}", delivery, get_args(Delivery))


def check_takes_three(what: str, function: Callable[..., object]) -> None:
    """Raise TypeError for what cannot be called as ``(event, measurements, metadata)``."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # some builtins do not tell their signature
    try:
        signature.bind(None, None, None)
    except TypeError as mismatch:
        raise TypeError(
            f"{what} is {function!r} with signature {signature}, which cannot take the three "
            f"arguments (event, measurements, metadata): {mismatch}."
        ) from mismatch


def _check_choice(what: str, choice: object, allowed: tuple[str, ...]) -> None:
    if choice not in allowed:
        raise ValueError(f"{what} must be one of {allowed!r}, got {choice!r}.")
