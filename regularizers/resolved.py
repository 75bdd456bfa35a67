"""Fields of a record that hold what a device computed, and read it when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from telemetry.values import to_python_many

T = TypeVar("T")


class Resolved(Generic[T]):
    """A dataclass field that keeps a tensor as it came and gives a Python value.

    The conversion is done at the first read, which is when the caller waits for the device, and
    kept beside the tensor, which stays in the record's ``__dict__`` under the field's name. It
    works in a frozen dataclass, whose constructor sets fields through the descriptor.

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
        self._read = f"_{name}_read"

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...

    @overload
    def __get__(self, record: object, owner: type) -> T: ...

    def __get__(self, record: object | None, owner: type) -> Self | T:
        if record is None:
            # This is how a dataclass learns that the field has no default.
            raise AttributeError(self._name)
        if not self.was_read(record):
            self.keep(record, record.__dict__[self._name])
        value: T = record.__dict__[self._read]
        return value

    def __set__(self, record: object, value: Any) -> None:
        record.__dict__[self._name] = value

    def was_read(self, record: object) -> bool:
        """Whether its Python value is known."""
        return self._read in record.__dict__

    def keep(self, record: object, value: Any) -> None:
        """Convert a value, and give that from now on."""
        record.__dict__[self._read] = self._convert(value)


def read_all(records: Iterable[object]) -> None:
    """Read every such field of many records, with one copy from each device for all of them."""
    unread = [
        (record, name, field)
        for record in records
        for name, field in vars(type(record)).items()
        if isinstance(field, Resolved) and not field.was_read(record)
    ]
    read = to_python_many([_as_mapping(vars(record)[name]) for record, name, _ in unread])
    for (record, name, field), values in zip(unread, read, strict=True):
        field.keep(record, values if isinstance(vars(record)[name], Mapping) else values[""])


def _as_mapping(held: Any) -> Mapping[str, Any]:
    return held if isinstance(held, Mapping) else {"": held}
