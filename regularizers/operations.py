"""What the penalties and the schedules need of a framework's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
"""An array or tensor of one framework, of floats of 32 bits or more."""

Shape: TypeAlias = tuple[Any, ...]
"""Numbers, or scalars of the framework where compiled code does not know them beforehand."""


class Operations(Protocol):
    """Operations on arrays, differentiable wherever the framework differentiates.

    Besides these, arrays have Python's operators. NaN goes through each of them, and through their
    gradients, but for that of `abs` on torch, which is 0 at NaN.
    """

    def abs(self, x: Array, /) -> Array:
        """Absolute values."""

    def sign(self, x: Array, /) -> Array:
        """-1, 0 or 1. It has no gradient."""

    def exp(self, x: Array, /) -> Array:
        """Powers of e."""

    def sqrt(self, x: Array, /) -> Array:
        """Square roots."""

    def at_least(self, x: Array, least: float, /) -> Array:
        """The larger of the two; the gradient is 0 where ``x`` is the smaller."""

    def clip(self, x: Array, least: float, most: float, /) -> Array:
        """``least`` where it is smaller, ``most`` where it is larger."""

    def cos(self, x: Array, /) -> Array:
        """Cosines, of radians."""

    def difference(self, x: Array, y: Array, p: Array, /) -> Array:
        """``x - y``, but 0 with the gradient 0 where ``p`` is 0, whatever they are there."""

    def sum(self, x: Array, /) -> Array:
        """The sum of all elements, of shape ()."""

    def sum_of_rest(self, x: Array, /) -> Array:
        """The sums over all axes but the first, of shape (n,), for an array of one axis or more."""

    def matmul(self, x: Array, y: Array, /) -> Array:
        """The matrix product over the last two axes, in the arrays' own precision."""

    def transpose(self, x: Array, /) -> Array:
        """With the last two axes exchanged."""

    def identity(self, x: Array, /) -> Array:
        """The identity matrix that can be subtracted from a square one, or a stack of them."""

    def shape(self, x: Array, /) -> Shape:
        """How long each axis is."""

    def divide(self, x: Array, count: Any, /) -> Array:
        """By a count, made of numbers of `shape`; a count of 0 is taken as 1."""

    def promote(self, arrays: Sequence[Array], /) -> Sequence[Array]:
        """With dtypes that can be calculated with each other."""

    def gradient(
        self, function: Callable[[Sequence[Array]], Array], arrays: Sequence[Array], /
    ) -> Sequence[Array]:
        """The gradient of the sum of what a function of some arrays returns, by each of them.

        Can be differentiated again. The function is called once, on arrays with the same values.

        Raises:
            ValueError: The framework does not differentiate.
        """
