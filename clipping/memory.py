"""What a clipper object remembers from one step to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from clipping.records import Array, Key, Ops, State

Record = TypeVar("Record", bound=tuple[Any, ...])


class Held(NamedTuple):
    """A state, and what is needed to understand its arrays."""

    ops: Ops
    keys: tuple[Key, ...]
    state: State


class Memory:
    """The one mutable part of a clipper."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: Held | None = None

    def recall(self, ops: Ops, keys: Sequence[Key], init: Callable[[Ops, int], State]) -> State:
        """The state, in arrays of ``ops``; a new one before the first step.

        Raises:
            ValueError: It is of other groups.
        """
        if self.held is None:
            return init(ops, len(keys))
        if self.held.keys != tuple(keys):
            raise ValueError(
                f"This clipper's history is of the groups {list(self.held.keys)!r}, the gradients "
                f"are of {list(keys)!r}. Use one clipper per model, or load the state that belongs "
                "to this model with load_state_dict()."
            )
        if self.held.ops == ops:
            return self.held.state
        source = self.held.ops
        return convert(self.held.state, lambda x: ops.from_host(source.to_host(x)))

    def keep(self, ops: Ops, keys: Sequence[Key], state: State) -> None:
        """Remember a state until the next step."""
        self.held = Held(ops, tuple(keys), state)


def convert(record: Record, change: Callable[[Array], Array]) -> Record:
    """Change every array of a (nested) named tuple."""
    return type(record)(
        *(convert(x, change) if isinstance(x, tuple) else change(x) for x in record)
    )
