"""Fields of a record that hold what a device computed, and read it when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar, overload

from telemetry.values import to_python_many

T = TypeVar("T")


class Resolved(Generic[T]):
    """A dataclass field that keeps a tensor as it came and gives a Python value.

    The conversion is done at the first read, which is when the caller waits for the device, and
    kept. It works in a frozen dataclass, whose constructor sets fields through the descriptor.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Record:
        ...     value: Resolved[float] = Resolved(float)
        >>> Record("2.5").value
        2.5
    """

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self._convert = convert

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...

    @overload
    def __get__(self, record: object, owner: type) -> T: ...

    def __get__(self, record: object | None, owner: type) -> Self | T:
        if record is None:
            # This is how a dataclass learns that the field has no default.
            raise AttributeError(self._name)
        value: T = self._convert(record.__dict__[self._name])
        record.__dict__[self._name] = value
        return value

    def __set__(self, record: object, value: Any) -> None:
        record.__dict__[self._name] = value


def read_all(records: Iterable[object]) -> None:
    """Read every such field of many records, with one copy from each device for all of them."""
    places = [place for record in records for place in _places(record)]
    raw = {str(number): holder[key] for number, (holder, key) in enumerate(places)}
    read = to_python_many([raw])[0]
    for (holder, key), value in zip(places, read.values(), strict=True):
        holder[key] = value


def _places(record: object) -> Iterator[tuple[dict[str, Any], str]]:
    for name, descriptor in vars(type(record)).items():
        if not isinstance(descriptor, Resolved):
            continue
        held = record.__dict__[name]
        if isinstance(held, dict):
            yield from ((held, key) for key in held)
        else:
            yield record.__dict__, name
