"""Norms of JAX gradients, and gradients times their factors.

Half-precision gradients are measured and multiplied in float32, and given back in their own dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clipping import units
from clipping.backends.jax_ops import JAX
from clipping.groups import Groups
from clipping.records import Array, Decision

Shape = tuple[int, ...]

_SINGLE = np.dtype(np.float32).itemsize


def row_norms(groups: Groups, arrays: Sequence[Any], shapes: Sequence[Shape]) -> Array:
    """The L2 norm of every row, float32 of shape [rows]; 0 for a row without a gradient.

    Args:
        groups: What the rows belong to.
        arrays: Gradients or parameters; None for one without a gradient.
        shapes: Of every parameter.
    """
    if groups.unitwise:
        every = zip(arrays, shapes, strict=True)
        return jnp.concatenate([_unit_norms(array, shape) for array, shape in every])
    zero = jnp.zeros((), jnp.float32)
    norms = [zero if array is None else _norm(array) for array in arrays]
    return groups.combine(JAX, jnp.stack(norms))


def scaled(groups: Groups, gradients: Sequence[Any], decision: Decision) -> list[Any]:
    """What a decision makes of gradients; None stays None."""
    rows = (decision.scale, decision.zeroed)
    return [
        None
        if gradient is None
        else _times(gradient, *(_of_one(groups, first, gradient, x) for x in rows))
        for gradient, first in zip(gradients, groups.first.tolist(), strict=True)
    ]


def _of_one(groups: Groups, first: int, gradient: Any, rows: Array) -> Array:
    """What the rows have for one gradient: a scalar, or one of each unit to broadcast."""
    if not groups.unitwise:
        return jax.lax.index_in_dim(rows, first, keepdims=False)
    shape = jnp.shape(gradient)
    within = units.last_axis(shape)
    spread = tuple(1 if axis in within else length for axis, length in enumerate(shape))
    return jax.lax.slice_in_dim(rows, first, first + units.count(shape, within)).reshape(spread)


def _times(gradient: Any, factor: Array, zeroed: Array) -> Array:
    wide = _wide(gradient)
    # Infinity times 0 would be NaN.
    return jnp.where(zeroed, 0, wide * factor).astype(jnp.asarray(gradient).dtype)


def _norm(array: Any) -> Array:
    return _root(jnp.sum(_squares(array)))


def _unit_norms(array: Any, shape: Shape) -> Array:
    within = units.last_axis(shape)
    if array is None:
        return jnp.zeros(units.count(shape, within), jnp.float32)
    return _root(jnp.sum(_squares(array), axis=within)).ravel()


def _squares(array: Any) -> Array:
    wide = _wide(array)
    if jnp.iscomplexobj(wide):
        return wide.real * wide.real + wide.imag * wide.imag
    return wide * wide


def _root(squares: Array) -> Array:
    return jnp.sqrt(squares).astype(jnp.float32)


def _wide(array: Any) -> Array:
    array = jnp.asarray(array)
    return array.astype(jnp.float32) if array.dtype.itemsize < _SINGLE else array
