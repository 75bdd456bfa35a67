"""What a compiled training step keeps between calls, as variables of its optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops  # type: ignore[import-untyped] # it ships no types
from keras.backend import backend  # type: ignore[import-untyped] # it ships no types
from numpy.typing import NDArray

from clipping.backends.keras_ops import KERAS, read
from clipping.clipper import Clipper
from clipping.emission import model_norm
from clipping.memory import convert
from clipping.records import Array, Decision, Measured, State


class StepVariables:
    """A clipper's state and what its last step measured, as variables of an optimizer.

    Args:
        optimizer: A built ``keras.optimizers.Optimizer``.
        clipper: Whose state it is.
        rows: How many rows its groups have.
    """

    def __init__(self, optimizer: Any, clipper: Clipper, rows: int) -> None:
        zeros = KERAS.full((rows,), 0.0)
        blank = Measured(zeros, zeros if clipper.weighs else None)
        decision, state = clipper.update(KERAS, clipper.init(KERAS, rows), blank)
        self._template, self._limits = state, tuple(decision.limits)
        report = KERAS.full((len(self._limits) + 4, rows), 0.0)
        others = (report, KERAS.zero_counts((rows,)), KERAS.full((), 0.0))
        self.all = [
            optimizer.add_variable(
                shape=tuple(like.shape),
                dtype=ops.dtype(like),
                aggregation="only_first_replica",
                name=f"clipper_{place}",  # Keras finds them by unique paths
            )
            for place, like in enumerate((*_flat(state), *others))
        ]

    def fill(self, state: State) -> None:
        """Start from a state, with no step measured."""
        *states, report, counts, norm = self.all
        for variable, value in zip(states, _flat(state), strict=True):
            variable.assign(value)
        for variable in (report, counts, norm):
            variable.assign(ops.zeros(variable.shape, dtype=variable.dtype))

    def state(self) -> State:
        """The state inside a step."""
        return self._state(map(ops.convert_to_tensor, self.all))

    def remember(self, decision: Decision, state: State) -> None:
        """Keep what a step decided and the state after it."""
        *states, report, counts, norm = self.all
        flags = decision.nonfinite
        total = model_norm(KERAS, decision.norms)
        rows = (
            *(decision.norms, *decision.limits.values(), decision.scale),
            *(KERAS.real(flags), KERAS.real(decision.zeroed)),
        )
        for variable, value in zip(states, _flat(state), strict=True):
            variable.assign(value)
        report.assign(ops.stack(rows))
        counts.assign(ops.convert_to_tensor(counts) + ops.cast(flags, "int32"))
        norm.assign(KERAS.where(KERAS.any(flags), total, ops.convert_to_tensor(norm)))

    def state_of(self, values: Sequence[Any]) -> State:
        """The state on the host, from the variables' values."""
        return self._state(np.array(read(value)) for value in values)

    def decision_of(self, values: Sequence[Any]) -> tuple[Decision, Any, Any]:
        """What the last step decided, from the values of the last three variables.

        Returns:
            The decision; how often each row was not finite since `fill`; and the model's gradient
            norm when one last was.
        """
        *_, (norms, *limits, scale, flags, zeroed), counts, norm = values
        known = dict(zip(self._limits, limits, strict=True))
        return Decision(norms, known, scale, flags > 0, zeroed > 0), counts, norm

    def _state(self, values: Iterable[Array]) -> State:
        remaining = iter(values)
        return convert(self._template, lambda _: next(remaining))


def on_cpu(value: Any) -> bool:
    """Whether reading a value is free."""
    if backend() == "jax":
        return all(device.platform == "cpu" for device in value.devices())
    return "cpu" in str(value.device).lower()


def to_host(value: Any) -> NDArray[Any]:
    """A copy in the precision of the host."""
    array = read(value)
    return np.array(array, np.float64 if array.dtype.kind == "f" else array.dtype)


def _flat(state: State) -> list[Array]:
    found: list[Array] = []
    convert(state, found.append)
    return found
