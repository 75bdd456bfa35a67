# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""Arrays in ``keras.ops``, inside a training step that may be compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from keras import Variable, ops  # type: ignore[import-untyped] # it ships no types
from numpy.typing import NDArray

from clipping.records import Array, Later, Window
from clipping.window import quantile

_DTYPES: Final = {"f": "float32", "i": "int32", "u": "int32", "b": "bool"}


@dataclass(frozen=True)
class KerasOps:
    """`clipping.records.Ops` in float32 and int32, for whichever backend Keras runs on.

    What a step leaves behind may be read outside it: ``to_host`` takes NumPy arrays as well.
    """

    on_host: ClassVar[bool] = False

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        return ops.full(shape, value, dtype="float32")

    def zero_counts(self, shape: tuple[int, ...]) -> Array:
        return ops.zeros(shape, dtype="int32")

    def slots(self, size: int) -> Array:
        return ops.arange(size, dtype="int32")

    def real(self, x: Array) -> Array:
        return ops.cast(x, "float32")

    def where(self, condition: Array, then: Array | float, otherwise: Array | float) -> Array:
        return ops.where(condition, _placed(then), _placed(otherwise))

    def isfinite(self, x: Array) -> Array:
        return ops.isfinite(x)

    def sqrt(self, x: Array) -> Array:
        return ops.sqrt(x)

    def exp(self, x: Array) -> Array:
        return ops.exp(x)

    def sum(self, x: Array) -> Array:
        return ops.sum(_counted(x), axis=-1, keepdims=True)

    def sum_before(self, x: Array) -> Array:
        first = ops.zeros_like(x[..., :1])
        return ops.concatenate([first, ops.cumsum(x[..., :-1], axis=-1)], axis=-1)

    def argsort(self, x: Array) -> Array:
        return ops.argsort(x, axis=-1)

    def take(self, x: Array, index: Array) -> Array:
        return ops.take_along_axis(x, index, axis=-1)

    def maximum(self, x: Array, least: float) -> Array:
        return ops.maximum(x, _placed(least))

    def segment_norms(self, x: Array, segments: Any, count: int) -> Array:
        return ops.sqrt(ops.segment_sum(x * x, self.from_host(segments), num_segments=count))

    def quantile(self, window: Window, q: float, decay: float) -> Array:
        return quantile(self, window, q, decay)

    def min(self, x: Array) -> Array:
        return ops.min(x)

    def any(self, x: Array) -> Array:
        return ops.any(x)

    def norm(self, x: Array) -> Array:
        return ops.sqrt(ops.sum(ops.square(x)))

    def export(self, x: Array) -> Any:
        return ops.unstack(x) if len(x.shape) else x

    def to_host(self, x: Array) -> Any:
        return read(x)

    def later(self, x: Array) -> Later | None:
        return None

    def from_host(self, x: Any) -> Array:
        array = np.asarray(x)
        return ops.convert_to_tensor(array, dtype=_DTYPES[array.dtype.kind])


KERAS: Final = KerasOps()


def _placed(x: Array | float) -> Array:
    return ops.convert_to_tensor(x, dtype="float32") if isinstance(x, int | float) else x


def _counted(x: Array) -> Array:
    return ops.cast(x, "int32") if ops.dtype(x) == "bool" else x


def read(value: Any) -> NDArray[Any]:
    """An array, tensor or variable in NumPy.

    Not by ``keras.ops.convert_to_numpy``, which relies on what NumPy 2 has deprecated.
    """
    value = value.value if isinstance(value, Variable) else value
    if isinstance(value, np.ndarray) or not hasattr(value, "numpy"):
        return np.asarray(value)
    host: NDArray[Any] = (value.detach().cpu() if hasattr(value, "detach") else value).numpy()
    return host
