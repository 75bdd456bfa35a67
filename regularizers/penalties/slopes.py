"""Penalties on the gradient of a function."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Real
from typing import Any, Final, NamedTuple, Self

from regularizers.backends import backend_for, find_backend
from regularizers.checks import as_float, check_function, describe
from regularizers.operations import Array
from regularizers.penalties.leaves import check_floats, check_real
from regularizers.penalties.penalty import with_grad
from regularizers.penalties.references import aligned
from regularizers.penalties.sums import Reduction, check_reduction
from regularizers.protocols import Backend, GradFunction, LossFunction, Scalar
from regularizers.trees import Tree, flatten, refill

NAME: Final = "gradient_penalty"

FLAT: Final = 1e-36
"""The least that a squared norm above 0 counts as, with the gradient 0; float32 ends at about
1e-38."""


def _gradient_penalty_grad(
    data: Any,
    logprobs: Tree,
    *,
    function: LossFunction,
    target: float = 1.0,
    reduction: Reduction = "sum",
    function_grad: GradFunction | None = None,
) -> Tree:
    slope = _Slope.checked(data, logprobs, function, function_grad, target, reduction)
    gradient = slope.differentiate(slope.penalty, list(flatten(logprobs).values()))
    return refill(logprobs, map(slope.backend.as_float, gradient))


@with_grad(_gradient_penalty_grad)
def gradient_penalty(
    data: Any,
    logprobs: Tree,
    *,
    function: LossFunction,
    target: float = 1.0,
    reduction: Reduction = "sum",
    function_grad: GradFunction | None = None,
) -> Scalar:
    """How steep a function of ``logprobs`` is, ``sum((||g_i|| - target)**2)`` over samples ``i``.

    ``g_i`` is the gradient of the sum of what ``function(data, logprobs)`` returns, by the i-th
    sample, and its norm is the L2 norm. With ``target=1`` a critic is held close to 1-Lipschitz
    where it is evaluated; hand the points over as ``logprobs``.

    The gradient is ``2 * (||g_i|| - target) * H g_i / ||g_i||`` with the Hessian ``H`` of the
    function, found by the framework; where ``g_i`` is 0 and it has none, it is 0. It also flows
    into whatever the function is computed with, such as a critic's parameters. A function that is
    linear in ``logprobs`` has ``H = 0``.

    Only the function's argument is differentiated by: what ``data``, or another leaf, was computed
    from it with before the call counts as a constant in ``g_i``, on every framework.

    Args:
        data: Handed to ``function``.
        logprobs: A tensor of shape (n, ...): the first axis counts samples; or a tree of them, and
            a sample is then one of each. Without axes it is one sample.
        function: ``function(data, logprobs)`` returns a tensor of any shape. It is called once,
            and must not mix samples, as batch normalization does.
        target: The norm that is aimed for, finite and at least 0.
        reduction: ``"sum"`` over samples, or ``"mean"`` over them.
        function_grad: ``function_grad(data, logprobs)`` returns ``g``, a tree of the same shape;
            it is called in place of ``function``. Needed on numpy only, which does not
            differentiate.

    Returns:
        A scalar on the tensors' device, at least 0; NaN if a gradient is NaN. 0 for no samples.

    Raises:
        TypeError: An argument is of a wrong type, a leaf is of complex numbers, or ``function``
            returns no tensor of the framework of ``logprobs``.
        ValueError: The target or the reduction is out of range, a leaf to differentiate by is of
            whole numbers, the leaves have different numbers of samples, it is called inside
            ``torch.inference_mode()`` (where ``torch.no_grad()`` would do), or numpy has no
            ``function_grad``. ``gradient_penalty.grad`` is never to be had on numpy: for gradient
            norms there, give ``RegularizerSpec`` a ``grad_fn``.

    Example:
        >>> import numpy as np
        >>> slope = np.array([3.0, 4.0])
        >>> points = np.zeros((2, 2))
        >>> float(gradient_penalty(
        ...     None,
        ...     points,
        ...     function=lambda data, x: x @ slope,
        ...     function_grad=lambda data, x: np.broadcast_to(slope, x.shape),
        ... ))  # (5 - 1) ** 2, twice
        32.0

    References:
        Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, arXiv:1704.00028.
    """
    slope = _Slope.checked(data, logprobs, function, function_grad, target, reduction)
    return slope.penalty(list(flatten(logprobs).values()))


class _Slope(NamedTuple):
    """The arguments of a gradient penalty."""

    data: Any
    logprobs: Tree
    function: LossFunction
    function_grad: GradFunction | None
    target: float
    reduction: Reduction

    @property
    def backend(self) -> Backend:
        return backend_for(flatten(self.logprobs).values())

    @classmethod
    def checked(
        cls,
        data: Any,
        logprobs: Tree,
        function: LossFunction,
        function_grad: GradFunction | None,
        target: float,
        reduction: Reduction,
    ) -> Self:
        check_function(NAME, "function", function)
        if function_grad is not None:
            check_function(NAME, "function_grad", function_grad)
        check_real(NAME, flatten(logprobs).values())
        check_reduction(reduction)
        return cls(data, logprobs, function, function_grad, _check_target(target), reduction)

    def differentiate(
        self, function: Callable[[Sequence[Array]], Array], leaves: Sequence[Array]
    ) -> Sequence[Array]:
        if self.backend.differentiates:
            check_floats(NAME, self.logprobs)
        gradient: Sequence[Array] = self.backend.xp.gradient(function, leaves)
        return gradient

    def penalty(self, leaves: Sequence[Array]) -> Scalar:
        """Of ``logprobs`` with these leaves."""
        if not leaves:
            return 0.0
        xp = self.backend.xp
        squares = self._squared_norms(leaves)
        # The root has an infinite derivative at 0.
        norms = xp.difference(xp.sqrt(xp.at_least(squares, FLAT)), 0.0, squares)
        value = xp.sum((norms - self.target) ** 2)
        return value if self.reduction == "sum" else xp.divide(value, xp.shape(squares)[0])

    def _squared_norms(self, leaves: Sequence[Array]) -> Array:
        """Of each sample's gradient, of shape (n,)."""
        xp = self.backend.xp
        slopes = [self.backend.as_float(slope) for slope in self._slopes(leaves)]
        samples = [slope if tuple(slope.shape) else slope[None] for slope in slopes]
        counts = [count for count, *_ in (slope.shape for slope in samples)]
        if len(set(counts) - {None}) > 1:
            raise ValueError(
                f"{NAME} got tensors with different numbers of samples: {counts}. "
                "The first axis of all tensors in logprobs counts the same samples."
            )
        squares = xp.promote([xp.sum_of_rest(slope * slope) for slope in samples])
        return reduce(operator.add, squares)

    def _slopes(self, leaves: Sequence[Array]) -> Sequence[Array]:
        if self.function_grad is None:
            return self.differentiate(self._outputs, leaves)
        logprobs = refill(self.logprobs, leaves)
        found = aligned(
            self.function_grad(self.data, logprobs),
            logprobs,
            f"{NAME} takes from function_grad one tensor for each of logprobs",
            "function_grad(data, logprobs) returns the gradient of function by logprobs.",
        )
        return list(flatten(found).values())

    def _outputs(self, leaves: Sequence[Array]) -> Array:
        outputs = self.function(self.data, refill(self.logprobs, leaves))
        if find_backend(outputs) is not self.backend:
            raise TypeError(
                f"{NAME} got {describe(outputs)} from function={self.function!r}. "
                f"It returns a tensor of {self.backend.name}, as logprobs is, of any shape."
            )
        return outputs


def _check_target(target: object) -> float:
    if isinstance(target, bool) or not isinstance(target, Real):
        raise TypeError(f"{NAME} got target={describe(target)}. It takes a number of at least 0.")
    # Another type of number could make the tensors float64, or not be subtracted from them.
    number = as_float(target)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{NAME} got target={target!r}. It takes a number of at least 0.")
    return number
