# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""The array operations in JAX, eager and inside what is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import jax
import jax.numpy as jnp
import numpy as np

from clipping.backends.jax_quantile import quantile
from clipping.records import Array, Later, Window

_DTYPES: Final = {"f": jnp.float32, "i": jnp.int32, "u": jnp.int32, "b": jnp.bool_}


@dataclass(frozen=True)
class JaxOps:
    """`clipping.records.Ops` in float32 and int32, even with 64 bits enabled.

    All but ``to_host`` queue only.
    """

    on_host: ClassVar[bool] = False

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return jnp.full(shape, value, jnp.float32)

    def zero_counts(self, shape: tuple[int, ...]) -> Array:
        return jnp.zeros(shape, jnp.int32)

    def slots(self, size: int) -> Array:
        return jnp.arange(size, dtype=jnp.int32)

    def real(self, x: Array) -> Array:
        return x.astype(jnp.float32)

    def where(self, condition: Array, then: Array | float, otherwise: Array | float) -> Array:
        return jnp.where(condition, then, otherwise)

    def isfinite(self, x: Array) -> Array:
        return jnp.isfinite(x)

    def sqrt(self, x: Array) -> Array:
        return jnp.sqrt(x)

    def exp(self, x: Array) -> Array:
        return jnp.exp(x)

    def sum(self, x: Array) -> Array:
        return jnp.sum(x, axis=-1, keepdims=True)

    def sum_before(self, x: Array) -> Array:
        sums = jnp.cumsum(x[..., :-1], axis=-1)
        return jnp.concatenate([jnp.zeros_like(x[..., :1]), sums], axis=-1)

    def argsort(self, x: Array) -> Array:
        return jnp.argsort(x, axis=-1)

    def take(self, x: Array, index: Array) -> Array:
        return jnp.take_along_axis(x, index, axis=-1, mode="promise_in_bounds")

    def maximum(self, x: Array, least: float) -> Array:
        return jnp.maximum(x, least)

    def segment_norms(self, x: Array, segments: Any, count: int) -> Array:
        return jnp.sqrt(jax.ops.segment_sum(x * x, segments, count))

    def quantile(self, window: Window, q: float, decay: float) -> Array:
        """See `clipping.backends.jax_quantile.quantile`."""
        return quantile(window, q, decay)

    def min(self, x: Array) -> Array:
        return jnp.min(x)

    def any(self, x: Array) -> Array:
        return jnp.any(x)

    def norm(self, x: Array) -> Array:
        return jnp.sqrt(jnp.sum(x * x))

    def export(self, x: Array) -> Any:
        return list(x) if x.ndim else x

    def to_host(self, x: Array) -> Any:
        return np.asarray(x)

    def later(self, x: Array) -> Later | None:
        return _Arriving(x)

    def from_host(self, x: Any) -> Array:
        return jnp.asarray(x, _DTYPES[np.asarray(x).dtype.kind])


JAX: Final = JaxOps()


class _Arriving:
    """A copy on its way to the host; the original may be donated meanwhile."""

    def __init__(self, x: Any) -> None:
        self._copy: Any = jnp.copy(x)
        self._copy.copy_to_host_async()

    def ready(self) -> bool:
        return bool(self._copy.is_ready())

    def value(self) -> Any:
        return np.asarray(self._copy)
