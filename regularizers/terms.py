"""One term of the loss: a function evaluated once, its result checked, its gradient measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from regularizers.backends import find_backend, snapshot
from regularizers.checks import describe, is_real, is_real_or_bool
from regularizers.functions import Function
from regularizers.problem import Problem
from regularizers.protocols import Computation, Gradient, Scalar, Value
from regularizers.trees import Tree
from regularizers.waiting import give_up, is_awaitable

PAIR = 2


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
        TypeError: The result is no real scalar and no ``(scalar, {metric: number})``.
        ValueError: It has dimensions, or cannot be differentiated.
    """
    if problem.recording is None or not problem.recording.traces:
        return conclude(function, function.call(problem.data, problem.logprobs), problem)

    def compute(logprobs: Tree) -> Value:
        return _checked(function.label, function.call(problem.data, logprobs))

    return _differentiated(function, compute, problem)


def conclude(function: Function, result: Any, problem: Problem) -> Term:
    """The same of a function that was called and returned this, where nothing traces it.

    Raises:
        TypeError: As above.
        ValueError: As above.
    """
    value = _checked(function.label, result)
    return _differentiated(function, lambda _: value, problem)


def _differentiated(function: Function, compute: Callable[[Tree], Value], problem: Problem) -> Term:
    if problem.recording is None or problem.backend is None:
        return _term(compute(problem.logprobs), None, None)
    grad = None if function.grad is None else partial(function.grad, problem.data)
    bound = Computation(function.label, compute, grad)
    value, gradient = problem.recording.differentiate(bound)
    return _term(value, gradient, problem.backend.norm(gradient))


def _term(value: Value, gradient: Gradient | None, grad_norm: Scalar | None) -> Term:
    custom = {name: snapshot(number) for name, number in value.custom.items()}
    return Term(value.scalar, snapshot(value.scalar), custom, gradient, grad_norm)


def _checked(label: str, result: Any) -> Value:
    scalar, custom = result, {}
    if isinstance(result, tuple) and len(result) == PAIR and isinstance(result[1], Mapping):
        scalar, custom = result
    _check_scalar(label, scalar)
    _check_metrics(label, custom)
    return Value(scalar, custom)


def _check_scalar(label: str, scalar: object) -> None:
    if find_backend(scalar) is None:
        reason = ""
        if is_awaitable(scalar):
            give_up(scalar)
            reason = ", which is not awaited: a base loss never is, and a regularizer's result once"
        raise TypeError(
            f"{label} returned {describe(scalar)}{reason}. "
            "Allowed: a scalar, or a pair of a scalar and a dict of metrics."
        )
    if getattr(scalar, "shape", ()) != ():
        raise ValueError(
            f"{label} returned {describe(scalar)}. "
            "A loss is a scalar, of shape (): reduce it, with .sum() or .mean()."
        )
    if not is_real(scalar):
        raise TypeError(
            f"{label} returned {describe(scalar)}. A loss is a real number, a float or an integer."
        )


def _check_metrics(label: str, custom: Mapping[Any, object]) -> None:
    for name, number in custom.items():
        if not isinstance(name, str):
            raise TypeError(
                f"{label} returned a metric named {name!r} ({type(name).__name__}). "
                "A metric's name is a string."
            )
        is_scalar = find_backend(number) is not None and getattr(number, "shape", ()) == ()
        if not is_scalar or not is_real_or_bool(number):
            raise TypeError(
                f"{label} returned {describe(number)} as the metric {name!r}. "
                "A metric is a number, or an array or tensor of shape ()."
            )
