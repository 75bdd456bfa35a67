"""What is asked for measurements: named functions, checked before the first time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from telemetry.arguments import check_name, is_number
from telemetry.values.jsonable import bounded_repr

Values: TypeAlias = Mapping[str, Any]
Probes: TypeAlias = Mapping[str, Callable[[], Any]] | Callable[[], Values]
"""A function for each measurement, or one that gives several."""

QUEUE_DEPTH: Final = "queue_depth"


class Probe(NamedTuple):
    """Something that is asked.

    Attributes:
        name: By which its failures are told.
        read: What it measures; what is None or absent could not be measured this time.
        measures: The names that are known before it is asked.
    """

    name: str
    read: Callable[[], Values]
    measures: frozenset[str]


def queue_probe(queue_depth: object) -> Probe:
    """The probe of a queue's depth.

    Raises:
        TypeError: It cannot be called without arguments.
    """
    return _single(QUEUE_DEPTH, check_probe(QUEUE_DEPTH, queue_depth, "queue_depth=queue.qsize"))


def own_probes(probes: object) -> list[Probe]:
    """The probes that a user gave.

    Raises:
        TypeError: They are neither a mapping nor a function, or one cannot be called without
            arguments.
        ValueError: A name is empty.
    """
    if isinstance(probes, Mapping):
        remedy = "probes={'open_files': count_open_files}"
        return [
            _single(check_name("Name of a probe", name), check_probe(name, function, remedy))
            for name, function in probes.items()
        ]
    if not callable(probes):
        raise TypeError(
            "probes must be a mapping of names to functions, or a function that returns a mapping "
            f"of names to numbers, got {bounded_repr(probes)} ({type(probes).__name__})."
        )
    name = getattr(probes, "__qualname__", type(probes).__qualname__)
    function = check_probe(name, probes, "probes=lambda: {'open_files': 3}")

    def read() -> Values:
        return _checked(function())

    return [Probe(name, read, frozenset())]


def check_probe(name: object, function: object, remedy: str) -> Callable[[], Any]:
    """Return what can be called without arguments, or raise TypeError."""
    if not callable(function):
        raise TypeError(
            f"Probe {bounded_repr(name)} must be a function without arguments, got "
            f"{bounded_repr(function)} ({type(function).__name__}). Write {remedy}."
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"Probe {bounded_repr(name)} is {bounded_repr(function)}, whose body would not run "
            "when it is called. Probes are called in a thread and not awaited: give a plain "
            "function."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return function  # some builtins do not tell their signature
    try:
        signature.bind()
    except TypeError as mismatch:
        raise TypeError(
            f"Probe {bounded_repr(name)} is {bounded_repr(function)} with signature {signature}, "
            f"which cannot be called without arguments: {mismatch}."
        ) from mismatch
    return function


def check_names(probes: Iterable[Probe]) -> None:
    """Raise ValueError if two probes have the same name, or measure the same."""
    names: dict[str, str] = {}
    for probe in probes:
        for measured in probe.measures or (probe.name,):
            if measured in names:
                raise ValueError(
                    f"Probe {bounded_repr(probe.name)} measures {bounded_repr(measured)}, which "
                    f"probe {bounded_repr(names[measured])} measures already. Name it otherwise, "
                    "or switch the other one off (host=False, gpu=False)."
                )
            names[measured] = probe.name


def _single(name: str, function: Callable[[], Any]) -> Probe:
    return Probe(name, lambda: _checked({name: function()}), frozenset({name}))


def _checked(values: object) -> Values:
    if not isinstance(values, Mapping):
        raise TypeError(
            f"It returned {bounded_repr(values)} ({type(values).__name__}). A mapping of names to "
            "numbers is wanted."
        )
    for name, value in values.items():
        check_name("Name of a measurement", name)
        if value is not None and not is_number(value):
            raise TypeError(
                f"It measured {bounded_repr(name)} as {bounded_repr(value)} "
                f"({type(value).__name__}). A number is wanted, or None if there is none."
            )
    return values
