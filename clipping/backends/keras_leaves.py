"""Single parameters and gradients of Keras; on TensorFlow these may be ``tf.IndexedSlices``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops  # type: ignore[import-untyped] # it ships no types

from clipping.backends.keras_layers import layers_of
from clipping.groups import Leaf
from clipping.records import Array
from clipping.units import count, last_axis


def leaves_of(variables: Sequence[Any], model: Any) -> list[Leaf]:
    """Describe trainable variables.

    Args:
        variables: In the model's order.
        model: A built model, whose name is no part of the names of its layers.

    Returns:
        One for each variable.
    """
    layers = layers_of(variables, model)
    return [
        Leaf(tuple(v.shape), layer, count(v.shape, last_axis(v.shape)))
        for v, layer in zip(variables, layers, strict=True)
    ]


def wide(x: Array) -> Array:
    """A tensor in a precision that norms can be summed in."""
    return ops.cast(x, "float32") if ops.dtype(x) in ("float16", "bfloat16") else x


def norm(x: Any, within: tuple[int, ...] | None) -> Array:
    """The L2 norm of a gradient or a variable, in float32.

    Args:
        x: A tensor, a variable or ``tf.IndexedSlices``.
        within: The axes of one unit; None for all axes.
    """
    dense = wide(_summed(x))
    return ops.cast(ops.sqrt(ops.sum(ops.square(dense), axis=within)), "float32")


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "indices") and hasattr(x, "dense_shape")


def on_values(change: Callable[[Array], Array], x: Any) -> Any:
    """A gradient with its values changed; those of ``tf.IndexedSlices`` one by one."""
    if not _is_sparse(x):
        return change(ops.convert_to_tensor(x))
    return type(x)(change(x.values), x.indices, x.dense_shape)


def _summed(x: Any) -> Array:
    """A dense tensor with the same norms along the axes after the first, and in all.

    An embedding's gradient has a slice for every look-up, and those of one index are summands.
    """
    if not _is_sparse(x):
        return ops.convert_to_tensor(x)
    order = ops.argsort(x.indices)
    indices = ops.take(x.indices, order)
    fresh = ops.cast(indices[1:] != indices[:-1], "int32")
    segments = ops.cumsum(ops.concatenate([ops.zeros((1,), dtype="int32"), fresh]))
    values = ops.take(wide(x.values), order, axis=0)
    return ops.segment_sum(values, segments, num_segments=ops.shape(indices)[0])
