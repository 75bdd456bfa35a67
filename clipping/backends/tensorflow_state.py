"""What a clipper remembers, in TensorFlow variables, so that eager code and graphs share it."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types
from numpy.typing import NDArray

from clipping.backends.tensorflow_ops import TENSORFLOW
from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.memory import Held, Saved
from clipping.records import Array, Decision, Measured, State


class Seen(NamedTuple):
    """What the last step in a graph left behind.

    Attributes:
        steps: How many steps the clipper had seen after it; 0 before the first.
        presence: Which of `Slots.presences` it had, a 0-d integer.
        decision: What was decided.
    """

    steps: Array
    presence: Array
    decision: Decision


class Slots:
    """The variables of one clipper.

    Args:
        clipper: Whose.
        groups: Of the model that it clips.
        state: What the variables start with.

    Attributes:
        groups: The same.
        state: A `State` of variables.
        seen: A `Seen` of variables.
        presences: Which rows had a gradient, of each kind of step that was traced; None is all.
        shared: Whether graphs or the caller have the variables, and so may use them unasked.
    """

    def __init__(self, clipper: Clipper, groups: Groups, state: State) -> None:
        self.groups = groups
        self.state: State = tf.nest.map_structure(_variable, state)
        self.seen: Seen = tf.nest.map_structure(_variable, _nothing_seen(clipper, groups))
        self.presences: list[NDArray[np.bool_] | None] = []
        self.shared = False

    def read(self) -> State:
        """The state in tensors."""
        state: State = tf.nest.map_structure(tf.convert_to_tensor, self.state)
        return state

    def write(self, state: State) -> None:
        """Replace the state."""
        tf.nest.map_structure(_assign, self.state, state)

    def note(self, decision: Decision, present: NDArray[np.bool_] | None) -> None:
        """Leave a step's measurements behind, for `Seen`; after the state was written."""
        place = self._place(present)
        steps = tf.convert_to_tensor(self.state.steps)
        seen = Seen(steps, tf.constant(place, tf.int64), decision)
        tf.nest.map_structure(_assign, self.seen, seen)

    def presence(self) -> NDArray[np.bool_] | None:
        """Which rows had a gradient in the last step; waits for it only if there is a choice."""
        if len(self.presences) == 1:
            return self.presences[0]
        return self.presences[int(TENSORFLOW.to_host(self.seen.presence))]

    def adopt(self, clipper: Clipper, saved: Saved | None) -> None:
        """Take over a loaded state, of which no step has been seen.

        Args:
            clipper: Whose.
            saved: None is the state of a clipper that has not seen a step.

        Raises:
            ValueError: It is of other groups.
        """
        if saved is not None and saved.names != self.groups.names:
            raise ValueError(
                f"This state cannot be loaded: it is of {len(saved.names)} groups, the first "
                f"{saved.names[0]!r}, and this clipper's variables, which compiled functions may "
                f"refer to, are of {len(self.groups.names)}, the first {self.groups.names[0]!r}. "
                "Load it into a new clipper. Nothing was changed."
            )
        rows = self.groups.rows
        if saved is None:
            self.write(clipper.init(TENSORFLOW, rows))
        else:
            self.write(clipper.restore(TENSORFLOW, rows, saved.columns, saved.steps))
        tf.nest.map_structure(_assign, self.seen, _nothing_seen(clipper, self.groups))

    def share(self, clipper: Clipper) -> None:
        """From now on let loaded states come here, and no other framework use the clipper."""
        self.shared = True
        clipper.memory.held = self.held()

    def held(self) -> Held:
        """The state for the clipper's memory."""
        adopt = self.adopt if self.shared else None
        return Held(TENSORFLOW, self.groups.names, self.state, adopt)

    def current(self, clipper: Clipper, groups: Groups) -> bool:
        """Whether the clipper's state is here, and not loaded or in another framework since."""
        held = clipper.memory.held
        here = held is not None and held.state is self.state and clipper.memory.saved is None
        return here and self.groups.names == groups.names

    def _place(self, present: NDArray[np.bool_] | None) -> int:
        for place, known in enumerate(self.presences):
            if np.array_equal(known, present):  # type: ignore[arg-type] # None is equal to None
                return place
        self.presences.append(present)
        return len(self.presences) - 1


_slots: WeakKeyDictionary[Clipper, Slots] = WeakKeyDictionary()


def slots_of(clipper: Clipper, groups: Groups) -> Slots:
    """The variables of a clipper, made when they are first asked for.

    Raises:
        ValueError: The clipper's state is of other groups, or a ``tf.function`` that has been
            called before asks for them first.
    """
    known = _slots.get(clipper)
    if known is not None:
        if known.groups.names == groups.names and known.groups.rows != groups.rows:
            raise ValueError(
                f"This clipper's variables are of {known.groups.rows} units, the gradients of "
                f"{groups.rows}. Use one clipper per model."
            )
        if known.current(clipper, groups):
            return _usable(known)
    if _replicas() > 1 and (context := tf.distribute.get_replica_context()) is not None:
        return _usable(context.merge_call(lambda _strategy: _made(clipper, groups)))
    return _made(clipper, groups)


def noted(clipper: Clipper) -> Slots | None:
    """The variables of a clipper that has been used in a graph."""
    known = _slots.get(clipper)
    return known if known is not None and known.presences else None


def replicated() -> bool:
    """Whether this is one of several replicas of a ``tf.distribute`` strategy."""
    return _replicas() > 1 and tf.distribute.get_replica_context() is not None


def _made(clipper: Clipper, groups: Groups) -> Slots:
    with tf.init_scope():
        state = clipper.memory.recall(clipper, TENSORFLOW, groups.names, groups.rows)
        slots = _slots.get(clipper)
        if slots is None or slots.groups.names != groups.names:
            slots = _created(clipper, groups, state)
        else:
            slots.write(state)  # another framework has used this clipper meanwhile
    _slots[clipper] = slots
    clipper.memory.keep(TENSORFLOW, groups.names, slots.state)
    clipper.memory.held = slots.held()
    return slots


def _nothing_seen(clipper: Clipper, groups: Groups) -> Seen:
    start = clipper.init(TENSORFLOW, groups.rows)
    nothing = TENSORFLOW.full((groups.rows,), 0.0)
    decision, _ = clipper.update(TENSORFLOW, start, Measured(nothing, nothing))
    return Seen(start.steps, start.steps, decision)


def _created(clipper: Clipper, groups: Groups, state: State) -> Slots:
    try:
        return Slots(clipper, groups, state)
    except ValueError as refused:
        raise ValueError(
            "The clipper's variables cannot be made here: a tf.function may make variables in its "
            "first call only. Make them before, outside of it, with "
            "clipping.tensorflow.variables(clipper, model)."
        ) from refused


def _usable(slots: Slots) -> Slots:
    plain = not isinstance(slots.state.steps, tf.distribute.DistributedValues)
    if plain and replicated():
        raise ValueError(
            "The clipper's variables were made outside of strategy.scope(), and several replicas "
            "cannot share them. Use a new clipper in strategy.run(), or call "
            "clipping.tensorflow.variables(clipper, model) in strategy.scope() first."
        )
    return slots


def _replicas() -> int:
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _variable(start: Array) -> Any:
    # Replicas decide alike, on the sum of their gradients, so that one may speak for all.
    return tf.Variable(
        start, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )


def _assign(variable: Any, value: Array) -> None:
    variable.assign(value, read_value=False)
