# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""The array operations in TensorFlow, in eager code and in graphs."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from clipping.records import Array, Later, Window
from clipping.window import quantile

_DTYPES: Final = {"f": tf.float32, "i": tf.int64, "u": tf.int64, "b": tf.bool}
_reader = ThreadPoolExecutor(1, "clipping.tensorflow")  # starts no thread before it is needed


@dataclass(frozen=True)
class TensorflowOps:
    """`clipping.records.Ops` in float32 and int64 tensors; only ``to_host`` waits for them."""

    on_host: ClassVar[bool] = False

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return tf.fill(shape, tf.constant(value, tf.float32))

    def zero_counts(self, shape: tuple[int, ...]) -> Array:
        return tf.zeros(shape, tf.int64)

    def slots(self, size: int) -> Array:
        return tf.range(size, dtype=tf.int64)

    def real(self, x: Array) -> Array:
        return tf.cast(x, tf.float32)

    def where(self, condition: Array, then: Array | float, otherwise: Array | float) -> Array:
        return tf.where(condition, then, otherwise)

    def isfinite(self, x: Array) -> Array:
        return tf.math.is_finite(x)

    def sqrt(self, x: Array) -> Array:
        return tf.sqrt(x)

    def exp(self, x: Array) -> Array:
        return tf.exp(x)

    def sum(self, x: Array) -> Array:
        x = tf.convert_to_tensor(x)
        counted = tf.cast(x, tf.int64) if x.dtype == tf.bool else x
        return tf.reduce_sum(counted, axis=-1, keepdims=True)

    def sum_before(self, x: Array) -> Array:
        return tf.cumsum(x, axis=-1, exclusive=True)

    def argsort(self, x: Array) -> Array:
        return tf.argsort(x, axis=-1, stable=True)

    def take(self, x: Array, index: Array) -> Array:
        return tf.gather(x, index, axis=-1, batch_dims=x.shape.rank - 1)

    def maximum(self, x: Array, least: float) -> Array:
        return tf.maximum(x, least)

    def segment_norms(self, x: Array, segments: Any, count: int) -> Array:
        return tf.sqrt(tf.math.unsorted_segment_sum(x * x, segments, count))

    def quantile(self, window: Window, q: float, decay: float) -> Array:
        return quantile(self, window, q, decay)

    def min(self, x: Array) -> Array:
        return tf.reduce_min(x)

    def any(self, x: Array) -> Array:
        return tf.reduce_any(x)

    def norm(self, x: Array) -> Array:
        return tf.sqrt(tf.reduce_sum(x * x))

    def export(self, x: Array) -> Any:
        return tf.unstack(x) if x.shape.rank else x

    def to_host(self, x: Array) -> Any:
        return _read(x)

    def later(self, x: Array) -> Later | None:
        return _Read(x)

    def from_host(self, x: Any) -> Array:
        array = np.asarray(x)
        return tf.constant(array, _DTYPES[array.dtype.kind])


TENSORFLOW: Final = TensorflowOps()


def _read(x: Any) -> Any:
    if not tf.executing_eagerly():
        raise RuntimeError(
            "A clipper's state cannot be read while a tf.function is traced. Read it outside, "
            "after the function has run."
        )
    return np.asarray(tf.convert_to_tensor(x).numpy())


class _Read:
    """A tensor on its way: TensorFlow has no way to ask whether it is there, so a thread waits."""

    def __init__(self, x: Any) -> None:
        self._read: Future[Any] = _reader.submit(_read, x)

    def ready(self) -> bool:
        return self._read.done()

    def value(self) -> Any:
        return self._read.result()
