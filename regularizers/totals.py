"""The sum of a loss's terms and of their gradients, taken up one term at a time."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Self

from regularizers.backends import snapshot
from regularizers.grads import Gradients
from regularizers.records import Backend, Gradient, Scalar
from regularizers.terms import Term
from regularizers.trees import Tree, refill


class Total(NamedTuple):
    """What the terms so far add up to."""

    gradients: Gradients | None
    base: Scalar
    regularizers: Scalar
    gradient: Gradient | None
    """None when gradients are not tracked."""

    @classmethod
    def of(cls, base: Term, gradients: Gradients | None) -> Self:
        """The base loss alone."""
        return cls(gradients, base.scalar, 0.0, base.gradient)

    def plus(self, weight: float, term: Term, contribution: Scalar) -> Self:
        """With one more regularizer, whose own gradient need not be kept any longer."""
        gradient = self.gradient
        if self.gradients is not None and gradient is not None and term.gradient is not None:
            add = partial(_add, self.gradients.backend, weight)
            gradient = list(map(add, gradient, term.gradient))
        return self._replace(regularizers=self.regularizers + contribution, gradient=gradient)

    def measure(self, loss: Scalar) -> dict[str, Scalar]:
        """The measurements of the ``custom_loss`` stop event."""
        measurements = {
            "loss_total": snapshot(loss),
            "regularizer_total": snapshot(self.regularizers),
        }
        if self.gradients is not None and self.gradient is not None:
            measurements["total_grad_norm"] = self.gradients.backend.norm(self.gradient)
        return measurements

    def grad(self, logprobs: Tree) -> Tree:
        """The gradient by ``logprobs``, where no framework finds it from the loss."""
        if self.gradients is None or self.gradients.backend.differentiates:
            return None
        return refill(logprobs, self.gradient or ())


def _add(backend: Backend, weight: float, total: Any, array: Any) -> Any:
    if array is None:
        return total
    return weight * array if total is None else backend.add_weighted(total, weight, array)
