"""One term of the loss: a function evaluated once, its result checked, its gradient measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from regularizers.backends import find_backend, snapshot
from regularizers.checks import describe
from regularizers.functions import Function
from regularizers.grads import Gradients
from regularizers.records import Computation, Gradient, Scalar, Value
from regularizers.trees import Tree

PAIR = 2


class Problem(NamedTuple):
    """What all terms of one loss are evaluated on."""

    data: Any
    logprobs: Tree
    gradients: Gradients | None
    """None when they are not tracked."""


class Term(NamedTuple):
    """What a function gave."""

    scalar: Scalar
    """Differentiable, as it was returned."""
    value: Scalar
    """The same without its graph."""
    custom: Mapping[str, Scalar]
    gradient: Gradient | None
    grad_norm: Scalar | None


def evaluate(function: Function, problem: Problem) -> Term:
    """Call a function once, and take its gradient if gradients are tracked.

    Raises:
        TypeError: The result is no scalar and no ``(scalar, {metric: number})``.
        ValueError: It has dimensions, or cannot be differentiated.
    """
    data, logprobs, gradients = problem
    compute = partial(_compute, function, data)
    gradient, grad_norm = None, None
    if gradients is None:
        result = compute(logprobs)
    else:
        backend, variables = gradients
        grad = None if function.grad is None else partial(function.grad, data)
        bound = Computation(function.label, compute, grad)
        result, gradient = backend.differentiate(bound, logprobs, variables)
        grad_norm = backend.norm(gradient)
    custom = {name: snapshot(number) for name, number in result.custom.items()}
    return Term(result.scalar, snapshot(result.scalar), custom, gradient, grad_norm)


def _compute(function: Function, data: Any, logprobs: Tree) -> Value:
    result = function.call(data, logprobs)
    scalar, custom = result, {}
    if isinstance(result, tuple) and len(result) == PAIR and isinstance(result[1], Mapping):
        scalar, custom = result
    _check_scalar(function.label, scalar)
    _check_metrics(function.label, custom)
    return Value(scalar, custom)


def _check_scalar(label: str, scalar: object) -> None:
    if find_backend(scalar) is None:
        raise TypeError(
            f"{label} returned {describe(scalar)}. "
            "Allowed: a scalar, or a pair of a scalar and a dict of metrics."
        )
    if getattr(scalar, "shape", ()) != ():
        raise ValueError(
            f"{label} returned {describe(scalar)}. "
            "A loss is a scalar, of shape (): reduce it, with .sum() or .mean()."
        )


def _check_metrics(label: str, custom: Mapping[Any, object]) -> None:
    for name, number in custom.items():
        if not isinstance(name, str):
            raise TypeError(
                f"{label} returned a metric named {name!r} ({type(name).__name__}). "
                "A metric's name is a string."
            )
        if find_backend(number) is None or getattr(number, "shape", ()) != ():
            raise TypeError(
                f"{label} returned {describe(number)} as the metric {name!r}. "
                "A metric is a number, or an array or tensor of shape ()."
            )
