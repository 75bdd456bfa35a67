"""numpy: values, and gradients where the functions bring their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Final

import numpy as np

from regularizers.records import Backend, Computation, Gradient, Value
from regularizers.trees import Path, Tree, flatten


class NumpyBackend:
    """See `regularizers.records.Backend`."""

    name = "numpy"
    differentiates = False
    xp: Any = np

    def owns(self, kind: type) -> bool:
        """Whether it is an array, one of numpy's scalars, or a Python number."""
        return issubclass(kind, np.ndarray | np.number | np.bool_ | Real)

    def as_float(self, leaf: Any) -> Any:
        """float16 becomes float32, integers float64."""
        array = np.asarray(leaf)
        return array.astype(np.result_type(array.dtype, np.float32), copy=False)

    def snapshot(self, value: Any) -> Any:
        """A 0-d array becomes one of numpy's scalars, which nothing can write to."""
        return value[()] if isinstance(value, np.ndarray) else value

    def variables(self, tree: Tree) -> list[Any]:
        """All leaves."""
        return list(flatten(tree).values())

    def differentiate(
        self, function: Computation, logprobs: Tree, variables: list[Any]
    ) -> tuple[Value, Gradient]:
        """The gradient is what the gradient function says, if it has the shape of ``logprobs``."""
        assert function.grad is not None  # noqa: S101 -- its absence was found at the call
        value = function.compute(logprobs)
        gradient = flatten(function.grad(logprobs))
        shapes = {path: np.shape(array) for path, array in gradient.items()}
        wanted = dict(zip(flatten(logprobs), map(np.shape, variables), strict=True))
        if shapes != wanted:
            raise ValueError(
                f"The gradient function of {function.label} returned arrays of shapes "
                f"{_show(shapes)}. It returns one array for each of logprobs, of the same shape: "
                f"{_show(wanted)}."
            )
        return value, [np.asarray(gradient[path], dtype=np.float64) for path in wanted]

    def add_weighted(self, total: Any, weight: float, array: Any) -> Any:
        """In float64."""
        return total + weight * array

    def norm(self, gradient: Gradient) -> float:
        """In float64."""
        return math.hypot(*(float(np.linalg.norm(array)) for array in gradient))


def _show(shapes: Mapping[Path, tuple[int, ...]]) -> str:
    named = {"".join(f"[{key!r}]" for key in path): shape for path, shape in shapes.items()}
    return ", ".join(f"{path} {shape}".strip() for path, shape in named.items()) or "none"


BACKEND: Final[Backend] = NumpyBackend()
