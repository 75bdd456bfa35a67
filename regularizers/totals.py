"""The sum of a loss's terms and of their gradients, taken up one term at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from regularizers.backends import add, add_weighted, find_backend, multiply, snapshot
from regularizers.checks import describe
from regularizers.problem import Problem
from regularizers.protocols import Backend, Gradient, Scalar
from regularizers.terms import Term
from regularizers.trees import Tree, refill


class Part(NamedTuple):
    """What a regularizer adds."""

    weight: Scalar
    scalar: Scalar
    """Its value, differentiable and not weighted."""
    gradient: Gradient | None
    """Of the value, not weighted."""


class Total:
    """What the terms so far add up to, in the order given, whatever order they come in.

    A gradient is let go as soon as it is added, because each may be as large as the model.
    """

    def __init__(self, problem: Problem, base: Term) -> None:
        self._problem = problem
        self._base = base.scalar
        self._framework = _framework_of(base.scalar)
        self._gradient = base.gradient
        self._owned = [False] * len(base.gradient or ())
        self._regularizers: Scalar | None = None
        self._waiting: dict[int, Part] = {}
        self._next = 0

    def check(self, label: str, scalar: Scalar) -> None:
        """Raise TypeError for a tensor of another framework than those that it is added to."""
        framework = _framework_of(scalar)
        self._framework = self._framework or framework
        if framework not in (None, self._framework):
            raise TypeError(
                f"{label} returned {describe(scalar)}, which cannot be added to tensors of "
                f"{self._framework}. Return one of those, or a number."
            )

    def take(self, index: int, part: Part) -> None:
        """Add a regularizer, now or when those before it have been added."""
        self._waiting[index] = part
        while self._next in self._waiting:
            self._add(self._waiting.pop(self._next))
            self._next += 1

    def loss(self) -> Scalar:
        """The differentiable total."""
        return add(self._base, self._regularizer_total)

    def measure(self, loss: Scalar) -> dict[str, Scalar]:
        """The measurements of the ``custom_loss`` stop event."""
        measurements = {
            "loss_total": snapshot(loss),
            "regularizer_total": snapshot(self._regularizer_total),
        }
        if self._problem.backend is not None and self._gradient is not None:
            measurements["total_grad_norm"] = self._problem.backend.norm(self._gradient)
        return measurements

    @property
    def _regularizer_total(self) -> Scalar:
        return 0.0 if self._regularizers is None else self._regularizers

    def grad(self) -> Tree:
        """The gradient by ``logprobs``, where no framework finds it from the loss."""
        if self._problem.backend is None or self._problem.backend.differentiates:
            return None
        pairs = zip(self._gradient or (), self._owned, strict=True)
        # What a gradient function returned may be a buffer that it writes to again.
        arrays = [array if owned else array.copy() for array, owned in pairs]
        return refill(self._problem.logprobs, arrays)

    def _add(self, part: Part) -> None:
        # Here and not when it comes, because torch's backward() adds up in the order in which
        # operations were done.
        if self._regularizers is None:
            self._regularizers = multiply(part.weight, part.scalar)
        else:
            self._regularizers = add_weighted(self._regularizers, part.weight, part.scalar)
        if self._problem.backend is None or self._gradient is None or part.gradient is None:
            return
        weight = snapshot(part.weight)  # it may be learned, and then is part of a graph
        pairs = enumerate(zip(self._gradient, part.gradient, strict=True))
        self._gradient = [
            self._accumulate(self._problem.backend, i, total, weight, array)
            for i, (total, array) in pairs
        ]

    def _accumulate(
        self, backend: Backend, index: int, total: Any, weight: Scalar, array: Any
    ) -> Any:
        if array is None:
            return total
        owned, self._owned[index] = self._owned[index], True
        if total is None:
            return multiply(weight, array)
        return backend.accumulate(total, weight, array, owned=owned)


def _framework_of(scalar: Scalar) -> str | None:
    """None for what can be added to any: numbers, and numpy's scalars and arrays."""
    backend = find_backend(scalar)
    return None if backend is None or backend.name == "numpy" else backend.name
