"""numpy: values, and gradients where the functions bring their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Real
from typing import Any, Final

import numpy as np

from regularizers.backends.numpy_operations import OPERATIONS
from regularizers.checks import describe, is_real_or_bool
from regularizers.protocols import Backend, Computation, Gradient, Recording, Scalar, Value
from regularizers.trees import Tree, flatten, shapes, show_path, show_shapes


class NumpyBackend:
    """See `regularizers.protocols.Backend`."""

    name = "numpy"
    differentiates = False
    crosses_threads = True
    xp: Any = OPERATIONS

    def owns(self, kind: type) -> bool:
        """Whether it is an array, one of numpy's scalars, or a Python number."""
        return issubclass(kind, np.ndarray | np.number | np.bool_ | Real)

    def as_float(self, leaf: Any) -> Any:
        """float16 and integers of up to 16 bits become float32, longer integers float64."""
        array = np.asarray(leaf)
        return array.astype(np.result_type(array.dtype, np.float32), copy=False)

    def snapshot(self, value: Any) -> Any:
        """A 0-d array becomes one of numpy's scalars, which nothing can write to."""
        return value[()] if isinstance(value, np.ndarray) else value

    def promote(self, left: Scalar, right: Scalar) -> tuple[Scalar, Scalar]:
        """0-d arrays as scalars: an array does not add to a tensor of torch."""
        return self.snapshot(left), self.snapshot(right)

    def add_weighted(self, total: Scalar, weight: Scalar, value: Scalar) -> Scalar:
        """In two operations."""
        return total + weight * value

    def tracing(self) -> bool:
        """Never."""
        return False

    def compiling(self, leaves: Iterable[Any]) -> bool:
        """Never."""
        return False

    def is_abstract(self, value: Any) -> bool:
        """Never."""
        return False

    def call_back(self, function: Callable[..., None], leaves: Sequence[Any]) -> None:
        """Nothing of numpy's is compiled."""
        raise NotImplementedError

    def carry(self) -> Callable[[], AbstractContextManager[None]]:
        """Nothing."""
        return nullcontext

    def check_variables(self, logprobs: Tree, wrt: Tree) -> None:
        """``wrt`` is refused: the gradient functions know gradients by ``logprobs`` only."""
        if wrt is not None:
            raise ValueError(
                "wrt= was given numpy arrays, but numpy does not differentiate. "
                "Leave wrt out: the gradient functions return the gradient by logprobs."
            )

    @contextmanager
    def record(self, logprobs: Tree, wrt: Tree) -> Iterator[Recording]:
        """Gradients are what the gradient functions say."""
        yield NumpyRecording(logprobs)

    def accumulate(self, total: Any, weight: Scalar, array: Any, *, owned: bool) -> Any:
        """In float64."""
        return total + weight * array

    def norm(self, gradient: Gradient) -> float:
        """In float64."""
        return math.hypot(*(float(np.linalg.norm(array)) for array in gradient))


class NumpyRecording:
    """See `regularizers.protocols.Recording`."""

    traces = False

    def __init__(self, logprobs: Tree) -> None:
        self.logprobs = logprobs

    def differentiate(self, function: Computation) -> tuple[Value, Gradient]:
        """The gradient is what the gradient function says, if it has the shape of ``logprobs``."""
        assert function.grad is not None  # noqa: S101 -- its absence was found at the call
        value = function.compute(self.logprobs)
        gradient_tree = function.grad(self.logprobs)
        given, wanted = shapes(gradient_tree), shapes(self.logprobs)
        if given != wanted:
            raise ValueError(
                f"The gradient function of {function.label} returned arrays of shapes "
                f"{show_shapes(given)}. It returns one array for each of logprobs, of the same "
                f"shape: {show_shapes(wanted)}."
            )
        gradient = flatten(gradient_tree)
        for path, array in gradient.items():
            if not is_real_or_bool(array):
                raise TypeError(
                    f"The gradient function of {function.label} returned {describe(array)} as "
                    f"gradient{show_path(path)}. A gradient is of real numbers."
                )
        return value, [np.asarray(gradient[path], dtype=np.float64) for path in wanted]


BACKEND: Final[Backend] = NumpyBackend()
