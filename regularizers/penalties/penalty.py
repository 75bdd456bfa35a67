"""A penalty: a function with its gradient."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce, update_wrapper
from typing import Any, Final, Generic, Literal, ParamSpec, TypeAlias

from regularizers.backends import backend_for
from regularizers.records import Backend, Scalar
from regularizers.trees import Tree, flatten, map_leaves

P = ParamSpec("P")

Reduction: TypeAlias = Literal["sum", "mean"]
"""Over what a penalty counts: ``"sum"`` adds up, ``"mean"`` divides by the number."""

REDUCTIONS: Final = ("sum", "mean")


class Penalty(Generic[P]):
    """A function ``(data, logprobs, *, ...) -> scalar`` that knows its gradient.

    Args:
        value: The function.
        grad: Its gradient by ``logprobs``, with the same arguments.

    Example:
        >>> from regularizers import penalties
        >>> float(penalties.l2(None, [3.0, 4.0]))
        25.0
        >>> [float(g) for g in penalties.l2.grad(None, [3.0, 4.0])]
        [6.0, 8.0]
    """

    def __init__(self, value: Callable[P, Scalar], grad: Callable[P, Tree]) -> None:
        self._value = value
        self._grad = grad
        update_wrapper(self, value)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Scalar:
        """The value."""
        return self._value(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Penalty {getattr(self._value, '__name__', self._value)}>"

    def grad(self, *args: P.args, **kwargs: P.kwargs) -> Tree:
        """The gradient of the value by ``logprobs``, a tree of the same shape."""
        return self._grad(*args, **kwargs)


def with_grad(grad: Callable[P, Tree]) -> Callable[[Callable[P, Scalar]], Penalty[P]]:
    """Make a `Penalty` of the decorated function."""
    return lambda value: Penalty(value, grad)


Elementwise: TypeAlias = Callable[[Any, Any], Any]
"""``(xp, array) -> array``, where ``xp`` has the array API's functions."""

Count: TypeAlias = Callable[[tuple[int, ...]], int]
"""How many a leaf of this shape counts for, in a mean."""


def total(tree: Tree, term: Elementwise, count: Count, reduction: Reduction) -> Scalar:
    """The sum of ``term`` over all elements, divided by the count in a mean."""
    backend = backend_for(flatten(tree).values())
    arrays = _arrays(tree, backend)
    divisor = _divisor(arrays, count, reduction)
    terms = [term(backend.xp, array).sum() for array in arrays]
    return _divide(reduce(operator.add, terms), divisor) if terms else 0.0


def gradient(tree: Tree, slope: Elementwise, count: Count, reduction: Reduction) -> Tree:
    """``slope`` of each leaf, divided by the count in a mean."""
    backend = backend_for(flatten(tree).values())
    divisor = _divisor(_arrays(tree, backend), count, reduction)

    def apply(leaf: Any) -> Any:
        return _divide(slope(backend.xp, backend.as_float(leaf)), divisor)

    return map_leaves(apply, tree)


def _arrays(tree: Tree, backend: Backend) -> list[Any]:
    return [backend.as_float(leaf) for leaf in flatten(tree).values()]


def _divisor(arrays: list[Any], count: Count, reduction: Reduction) -> int:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS!r}, got {reduction!r}.")
    if reduction == "sum":
        return 1
    return max(1, sum(count(tuple(array.shape)) for array in arrays))


def _divide(value: Any, divisor: int) -> Any:
    return value if divisor == 1 else value / divisor
