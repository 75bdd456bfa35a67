"""Norms of TensorFlow gradients, and gradients times their factors, in the fewest operations.

Half-precision gradients are measured and multiplied in float32, and given back in their own dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from clipping import units
from clipping.backends.tensorflow_given import Gradient, Layout, Shape
from clipping.backends.tensorflow_ops import TENSORFLOW
from clipping.records import Array, Decision


def row_norms(layout: Layout, gradients: Sequence[Gradient | None]) -> Array:
    """The L2 norm of every row, float32 of shape [rows]; 0 for a row without a gradient.

    Args:
        layout: What the rows belong to.
        gradients: Of every variable, or the variables themselves.
    """
    groups = layout.groups
    if groups.unitwise:
        sizes = np.diff(np.r_[groups.first, groups.rows]).tolist()
        every = zip(gradients, sizes, strict=True)
        return tf.concat([_unit_norms(g, size, layout.on_cpu) for g, size in every], 0)
    zero = tf.constant(0.0)
    squares = [zero if g is None else _square_sum(_summed(g)) for g in gradients]
    # Norms that float32 can hold have squares, and sums of squares, that it cannot.
    wide = tf.float64 if any(s.dtype == tf.float64 for s in squares) else tf.float32
    norms = tf.sqrt(tf.stack([tf.cast(square, wide) for square in squares]))
    return tf.cast(groups.combine(TENSORFLOW, norms), tf.float32)


def scaled(
    layout: Layout, gradients: Sequence[Gradient | None], decision: Decision
) -> list[Gradient | None]:
    """What a decision makes of gradients.

    A row that is zeroed has factor 0, and what is multiplied by 0 becomes 0 whatever it was.
    """
    factors = _factors(layout, decision.scale)
    return [
        None if gradient is None else _times(gradient, factor)
        for gradient, factor in zip(gradients, factors, strict=True)
    ]


def _factors(layout: Layout, scale: Array) -> list[Array]:
    """For each variable what it is multiplied by: a scalar, or one of each unit to broadcast."""
    groups = layout.groups
    if not groups.unitwise:
        each = tf.unstack(scale)
        return [each[row] for row in groups.first.tolist()]
    sizes = np.diff(np.r_[groups.first, groups.rows])
    parts = tf.split(scale, sizes)
    every = zip(parts, layout.shapes, strict=True)
    return [tf.reshape(part, _broadcast(shape)) for part, shape in every]


def _broadcast(shape: Shape) -> Shape:
    within = units.last_axis(shape)
    return tuple(1 if axis in within else length for axis, length in enumerate(shape))


def _times(gradient: Gradient, factor: Array) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        values = _times(gradient.values, factor)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    wide = _wide(gradient)
    return tf.cast(tf.math.multiply_no_nan(wide, tf.cast(factor, wide.dtype)), gradient.dtype)


def _square_sum(gradient: Array) -> Array:
    """The square of a norm, in float32, or float64 where the gradient is."""
    values = _wide(gradient)
    if values.dtype.is_complex:
        values = tf.abs(values)
    return 2 * tf.nn.l2_loss(values)


def _unit_norms(gradient: Gradient | None, size: int, on_cpu: bool) -> Array:
    """The norms of the units of one variable, of which there are ``size``."""
    if gradient is None:
        return tf.zeros([size])
    values = _summed(gradient)
    if size == 1:
        return tf.cast(tf.sqrt(_square_sum(values)), tf.float32)[None]
    # The units are what is left of the last axes; see clipping.units.last_axis.
    values = tf.reshape(_wide(values), [-1, size])
    squares = tf.square(tf.abs(values) if values.dtype.is_complex else values)
    if on_cpu:  # where a product is faster than a sum over columns, and no less precise
        ones = tf.ones([1, tf.shape(squares)[0]], squares.dtype)
        sums = tf.matmul(ones, squares)[0]
    else:
        sums = tf.reduce_sum(squares, 0)
    return tf.cast(tf.sqrt(sums), tf.float32)


def _summed(gradient: Gradient) -> Array:
    """The rows that a sparse gradient has, those of the same index summed; a dense one as it is."""
    if not isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    distinct, place = tf.unique(gradient.indices)
    return tf.math.unsorted_segment_sum(_wide(gradient.values), place, tf.size(distinct))


def _wide(values: Array) -> Array:
    return tf.cast(values, tf.float32) if values.dtype in (tf.float16, tf.bfloat16) else values
