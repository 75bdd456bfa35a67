"""The gradients of one optimizer step of Keras: measured and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops  # type: ignore[import-untyped] # it ships no types
from numpy.typing import NDArray

from clipping.backends.keras_leaves import norm, on_values, wide
from clipping.backends.keras_ops import KERAS
from clipping.groups import Groups
from clipping.records import Array, Decision, Measured
from clipping.units import last_axis


@dataclass(frozen=True)
class KerasGradients:
    """The gradients that one optimizer step is given.

    Args:
        groups: How all trainable variables are grouped.
        variables: Those that have a gradient.
        places: Which of the trainable ones these are.
        tensors: Their gradients; on TensorFlow those of embeddings may be ``tf.IndexedSlices``.
    """

    groups: Groups
    variables: Sequence[Any]
    places: Sequence[int]
    tensors: Sequence[Any]

    def present(self) -> NDArray[np.bool_] | None:
        """Which rows have a gradient; None if all."""
        parameters = np.zeros(len(self.groups.first), bool)
        parameters[list(self.places)] = True
        return self.groups.present(parameters)

    def measure(self, *, weights: bool) -> Measured:
        """The norms of every row, those of the weights as well if they are asked for."""
        present, grouped = self.present(), self.groups.grouped
        return Measured(
            self._norms(self.tensors),
            self._norms(self.variables) if weights else None,
            None if present is None else KERAS.from_host(present),
            None if grouped is None else KERAS.from_host(grouped),
        )

    def rescale(self, decision: Decision) -> list[Any]:
        """The gradients, scaled or zeroed as it was decided."""
        first = self.groups.first.tolist()
        given = zip(self.tensors, self.variables, self.places, strict=True)
        return [self._rescaled(g, v, first[place], decision) for g, v, place in given]

    def _norms(self, tensors: Sequence[Any]) -> Array:
        sizes = np.diff(np.r_[self.groups.first, self.groups.rows])
        lengths = sizes if self.groups.unitwise else np.ones_like(sizes)
        parts = [ops.zeros((length,), dtype="float32") for length in lengths.tolist()]
        for tensor, variable, place in zip(tensors, self.variables, self.places, strict=True):
            within = last_axis(variable.shape) if self.groups.unitwise else None
            parts[place] = ops.reshape(norm(tensor, within), (-1,))
        return self.groups.combine(KERAS, ops.concatenate(parts))

    def _rescaled(self, gradient: Any, variable: Any, first: int, decision: Decision) -> Any:
        shape: list[int] = []
        if self.groups.unitwise:
            within = last_axis(variable.shape)
            shape = [1 if i in within else length for i, length in enumerate(variable.shape)]
        rows = slice(first, first + int(np.prod(shape)))
        scale = ops.reshape(decision.scale[rows], shape)
        zeroed = ops.reshape(decision.zeroed[rows], shape)

        def scaled(x: Array) -> Array:
            # In half precision the factor itself would be rounded to 11 bits, or to 0.
            exact = wide(x)
            product = ops.cast(exact * ops.cast(scale, ops.dtype(exact)), ops.dtype(x))
            # No factor turns NaN into 0.
            return ops.where(zeroed, ops.zeros_like(product), product)

        return on_values(scaled, gradient)
