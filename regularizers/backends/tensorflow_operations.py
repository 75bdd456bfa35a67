# ruff: noqa: D102 -- the methods are documented on regularizers.operations.Operations
"""The operations of the penalties on TensorFlow's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from regularizers.operations import Array, Operations, Shape


class TensorflowOperations:
    """See `regularizers.operations.Operations`."""

    abs = staticmethod(tf.math.abs)
    sign = staticmethod(tf.math.sign)
    exp = staticmethod(tf.math.exp)
    sqrt = staticmethod(tf.math.sqrt)
    at_least = staticmethod(tf.math.maximum)
    clip = staticmethod(tf.clip_by_value)
    cos = staticmethod(tf.math.cos)
    sum = staticmethod(tf.math.reduce_sum)
    matmul = staticmethod(tf.linalg.matmul)
    transpose = staticmethod(tf.linalg.matrix_transpose)

    def difference(self, x: Array, y: Array, p: Array) -> Array:
        return tf.where(p != 0.0, x - y, 0.0)

    def sum_of_rest(self, x: Array) -> Array:
        return tf.math.reduce_sum(x, axis=list(range(1, x.shape.rank)))

    def identity(self, x: Array) -> Array:
        return tf.eye(tf.shape(x)[-1], dtype=x.dtype)

    def shape(self, x: Array) -> Shape:
        lengths = tf.shape(x)
        return tuple(
            lengths[axis] if known is None else known for axis, known in enumerate(x.shape)
        )

    def divide(self, x: Array, count: Any) -> Array:
        return x / tf.cast(tf.math.maximum(count, 1), x.dtype)

    def promote(self, arrays: Sequence[Array]) -> Sequence[Array]:
        dtypes = {array.dtype for array in arrays}
        widest = max(dtypes, key=lambda dtype: dtype.size, default=None)
        return [tf.cast(array, widest) for array in arrays]

    def gradient(
        self, function: Callable[[Sequence[Array]], Array], arrays: Sequence[Array]
    ) -> Sequence[Array]:
        # Not the tensors themselves: one that is given twice would be one to the tape.
        variables = [tf.identity(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            outputs = function(variables)
        gradients = tape.gradient(
            outputs, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [tf.convert_to_tensor(gradient) for gradient in gradients]


OPERATIONS: Final[Operations] = TensorflowOperations()
