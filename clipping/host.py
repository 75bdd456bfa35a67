# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""The array operations in NumPy: float64, for gradients that the CPU can read for nothing."""

from __future__ import annotations

from typing import Final

import numpy as np

from clipping.records import Array, Later, Window
from clipping.window import quantile


class HostOps:
    """`clipping.records.Ops` in NumPy's float64."""

    on_host: Final = True

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return np.full(shape, value)

    def zero_counts(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape, np.int64)

    def slots(self, size: int) -> Array:
        return np.arange(size)

    def real(self, x: Array) -> Array:
        return np.asarray(x, np.float64)

    def where(self, condition: Array, then: Array, otherwise: Array) -> Array:
        return np.where(condition, then, otherwise)

    def isfinite(self, x: Array) -> Array:
        return np.isfinite(x)

    def sqrt(self, x: Array) -> Array:
        return np.sqrt(x)

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def sum(self, x: Array) -> Array:
        return np.sum(x, axis=-1, keepdims=True)

    def sum_before(self, x: Array) -> Array:
        sums = np.zeros_like(x)
        np.cumsum(x[..., :-1], axis=-1, out=sums[..., 1:])
        return sums

    def argsort(self, x: Array) -> Array:
        return np.argsort(x, axis=-1, kind="stable")

    def take(self, x: Array, index: Array) -> Array:
        return np.take_along_axis(x, index, axis=-1)

    def maximum(self, x: Array, least: float) -> Array:
        return np.maximum(x, least)

    def segment_norms(self, x: Array, segments: Array, count: int) -> Array:
        with np.errstate(over="ignore"):
            return np.sqrt(np.bincount(segments, weights=np.square(x), minlength=count))

    def quantile(self, window: Window, q: float, decay: float) -> Array:
        return quantile(self, window, q, decay)

    def min(self, x: Array) -> Array:
        return np.min(x)

    def any(self, x: Array) -> Array:
        return np.any(x)

    def norm(self, x: Array) -> Array:
        with np.errstate(over="ignore"):  # infinity is what it says
            return np.sqrt(np.einsum("i,i->", x, x))

    def export(self, x: Array) -> Array:
        return x.tolist()

    def to_host(self, x: Array) -> Array:
        return np.asarray(x)

    def later(self, x: Array) -> Later | None:
        return None

    def from_host(self, x: Array) -> Array:
        return x


HOST: Final = HostOps()
