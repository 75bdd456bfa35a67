# ruff: noqa: D102 -- the methods are documented on regularizers.operations.Operations
"""The operations of the penalties on numpy's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from regularizers.operations import Array, Operations, Shape


class NumpyOperations:
    """See `regularizers.operations.Operations`."""

    abs = staticmethod(np.abs)
    sign = staticmethod(np.sign)
    exp = staticmethod(np.exp)
    sqrt = staticmethod(np.sqrt)
    at_least = staticmethod(np.maximum)
    clip = staticmethod(np.clip)
    cos = staticmethod(np.cos)
    sum = staticmethod(np.sum)
    matmul = staticmethod(np.matmul)

    def difference(self, x: Array, y: Array, p: Array) -> Array:
        zeros = np.zeros_like(x, dtype=np.result_type(x, y))
        return np.subtract(x, y, where=p != 0.0, out=zeros)

    def sum_of_rest(self, x: Array) -> Array:
        return np.sum(x, axis=tuple(range(1, x.ndim)))

    def transpose(self, x: Array) -> Array:
        return np.swapaxes(x, -1, -2)

    def identity(self, x: Array) -> Array:
        return np.eye(x.shape[-1], dtype=x.dtype)

    def shape(self, x: Array) -> Shape:
        return np.shape(x)

    def divide(self, x: Array, count: int) -> Array:
        return x / max(count, 1)

    def promote(self, arrays: Sequence[Array]) -> Sequence[Array]:
        return arrays

    def gradient(
        self, function: Callable[[Sequence[Array]], Any], arrays: Sequence[Array]
    ) -> Sequence[Array]:
        raise ValueError(
            "numpy does not differentiate. Give gradient_penalty the gradient of its function as "
            "function_grad=, and for gradient norms give RegularizerSpec that of the penalty "
            "itself as grad_fn=; both are functions of (data, logprobs)."
        )


OPERATIONS: Final[Operations] = NumpyOperations()
