# ruff: noqa: D102 -- the methods are documented on regularizers.operations.Operations
"""The operations of the penalties on jax's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import jax
import jax.numpy as jnp

from regularizers.operations import Array, Operations, Shape


class JaxOperations:
    """See `regularizers.operations.Operations`."""

    sign = staticmethod(jnp.sign)
    exp = staticmethod(jnp.exp)
    sqrt = staticmethod(jnp.sqrt)
    at_least = staticmethod(jnp.maximum)
    clip = staticmethod(jnp.clip)
    cos = staticmethod(jnp.cos)
    sum = staticmethod(jnp.sum)
    # An accelerator would round to fewer bits.
    matmul = staticmethod(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))

    def abs(self, x: Array) -> Array:
        # The slope of jnp.abs at zero is 1.
        return x * jnp.sign(x)

    def difference(self, x: Array, y: Array, p: Array) -> Array:
        return jnp.where(p != 0.0, x - y, 0.0)

    def sum_of_rest(self, x: Array) -> Array:
        return jnp.sum(x, axis=tuple(range(1, x.ndim)))

    def transpose(self, x: Array) -> Array:
        return jnp.swapaxes(x, -1, -2)

    def identity(self, x: Array) -> Array:
        return jnp.eye(x.shape[-1], dtype=x.dtype)

    def shape(self, x: Array) -> Shape:
        return jnp.shape(x)

    def divide(self, x: Array, count: int) -> Array:
        return x / max(count, 1)

    def promote(self, arrays: Sequence[Array]) -> Sequence[Array]:
        return arrays

    def gradient(
        self, function: Callable[[Sequence[Array]], Array], arrays: Sequence[Array]
    ) -> Sequence[Array]:
        gradient: Sequence[Array] = jax.grad(lambda given: jnp.sum(function(given)))(list(arrays))
        return gradient


OPERATIONS: Final[Operations] = JaxOperations()
