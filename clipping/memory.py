"""What a clipper object remembers from one step to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from clipping.records import Array, Key, Ops, State

if TYPE_CHECKING:
    from clipping.clipper import Clipper

Record = TypeVar("Record", bound=tuple[Any, ...])


class Held(NamedTuple):
    """A state in use, and what is needed to understand its arrays."""

    ops: Ops
    names: tuple[Key, ...]
    state: State
    adopt: Callable[[Clipper, Saved | None], None] | None = None
    """Writes a loaded state to ``state``, where that is variables of compiled code.

    Such code goes on with its variables whatever the clipper is used for elsewhere, so that no
    other ``ops`` may.
    """


class Saved(NamedTuple):
    """A state that was loaded and has not been used yet."""

    names: tuple[Key, ...]
    steps: int
    columns: Mapping[str, list[Any]]


class Memory:
    """The one mutable part of a clipper.

    Attributes:
        held: The state, or None.
        saved: What was loaded instead, or None.
    """

    __slots__ = ("held", "in_use", "saved")

    def __init__(self) -> None:
        self.held: Held | None = None
        self.saved: Saved | None = None
        self.in_use = False

    def recall(self, clipper: Clipper, ops: Ops, names: tuple[Key, ...], rows: int) -> State:
        """The state, in arrays of ``ops``; a new one before the first step.

        Whoever recalls a state keeps another one, or the next to recall gets one rebuilt from
        what a step that was interrupted cannot have spoilt.

        Raises:
            ValueError: It is of other groups, or in variables of another framework's compiled
                code.
        """
        known = self.saved or self.held
        if known is not None and known.names is not names and known.names != names:
            raise ValueError(
                f"This clipper's history is of the groups {_listed(known.names)}, the gradients "
                f"are of {_listed(names)}. Use one clipper per model, or load the state that "
                "belongs to this model with load_state_dict(). Parameters that are frozen, "
                "unfrozen or added change the groups: begin with a new clipper then."
            )
        if self.held is not None and self.held.adopt is not None and self.held.ops != ops:
            raise ValueError(
                "This clipper's state is in variables that compiled functions may refer to, which "
                "would not learn of a step in another framework. Use a new clipper here; "
                "new.load_state_dict(clipper.state_dict()) gives it what this one has learned. "
                "Gradients and clipper are untouched."
            )
        if self.saved is None and self.held is not None and (self.in_use or self.held.ops != ops):
            self.saved = self._rescued(clipper, self.held)
        if self.saved is not None:
            state = clipper.restore(ops, rows, self.saved.columns, self.saved.steps)
        else:
            state = clipper.init(ops, rows) if self.held is None else self.held.state
        self.in_use = True
        return state

    def keep(self, ops: Ops, names: tuple[Key, ...], state: State) -> None:
        """Remember a state until the next step."""
        self.held = Held(ops, names, state)
        self.saved = None
        self.in_use = False

    def load(self, clipper: Clipper, saved: Saved | None) -> None:
        """Forget everything but a loaded state."""
        if self.held is not None and self.held.adopt is not None:
            self.held.adopt(clipper, saved)
            saved = None
        else:
            self.held = None
        self.saved = saved
        self.in_use = False

    def threshold(self) -> float:
        """The first that there is: rows of no group have none. Infinity if no row has one."""
        if self.held is not None and self.saved is None:
            thresholds = self.held.ops.to_host(self.held.state.threshold).tolist()
        else:
            thresholds = self.saved.columns.get("thresholds", []) if self.saved else []
        return next((float(t) for t in thresholds if t is not None and t < math.inf), math.inf)

    def _rescued(self, clipper: Clipper, held: Held) -> Saved:
        """A state on its way to another device, or left behind by an interrupted step."""
        steps, columns = _described(clipper, held)
        if self.in_use:  # what is optional was derived, maybe half of it before the interruption
            optional = {name for name, c in clipper.columns(steps).items() if c.optional}
            columns = {name: c for name, c in columns.items() if name not in optional}
        return Saved(held.names, steps, columns)

    def described(self, clipper: Clipper) -> dict[str, Any]:
        """The state as JSON data."""
        saved = self.saved
        if saved is None and self.held is not None:
            saved = Saved(self.held.names, *_described(clipper, self.held))
        if saved is None:
            required = (name for name, c in clipper.columns(0).items() if not c.optional)
            saved = Saved((), 0, {name: [] for name in required})
        return {
            "keys": [list(key) for key in saved.names],
            "steps": saved.steps,
            **{name: list(column) for name, column in saved.columns.items()},
        }


def convert(record: Record, change: Callable[[Array], Array]) -> Record:
    """Change every array of a (nested) named tuple."""
    return type(record)(
        *(convert(x, change) if isinstance(x, tuple) else change(x) for x in record)
    )


def _described(clipper: Clipper, held: Held) -> tuple[int, dict[str, list[Any]]]:
    return int(held.ops.to_host(held.state.steps)), clipper.describe(held.ops, held.state)


def _listed(names: tuple[Key, ...]) -> str:
    most = 8
    text = ", ".join(map(repr, names[:most]))
    return f"[{text}]" if len(names) <= most else f"[{text}, ... {len(names)} in all]"
