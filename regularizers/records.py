"""The Protocols and frozen records of this package."""

# ruff: noqa: RUF009 -- Resolved() is a descriptor, one for each field, not a shared default

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import orjson

from regularizers.resolved import Resolved, read_all
from regularizers.trees import Tree
from telemetry.values import jsonable, to_python, to_python_many

Scalar: TypeAlias = Any
"""A Python number, or a 0-d array or tensor of a supported framework."""

LossFunction: TypeAlias = Callable[[Any, Any], Any]
"""``(data, logprobs) -> scalar`` or ``(scalar, {metric: number})``."""

GradFunction: TypeAlias = Callable[[Any, Any], Tree]
"""``(data, logprobs) -> gradient``, a tree of the same shape as ``logprobs``."""


class Value(NamedTuple):
    """What a loss function returned: its scalar and its further metrics."""

    scalar: Scalar
    custom: Mapping[str, Scalar]


class Computation(NamedTuple):
    """A loss function with its data bound and its result checked."""

    label: str
    """What to call it in a message."""
    compute: Callable[[Any], Value]
    grad: Callable[[Any], Tree] | None
    """The gradient that it brings along, with its data bound."""


Gradient: TypeAlias = Sequence[Any]
"""One array for each variable; None where the function does not depend on it."""


class Backend(Protocol):
    """What the runner and the penalties need of a framework."""

    name: str
    differentiates: bool
    """Whether it finds gradients itself; else each function has to bring its own."""
    xp: Any
    """A namespace with the array API's functions."""

    def owns(self, kind: type) -> bool:
        """Whether values of this type are its tensors."""

    def as_float(self, leaf: Any) -> Any:
        """A leaf as an array of floats of 32 bits or more."""

    def snapshot(self, value: Any) -> Any:
        """The value without its graph, in memory that nobody else writes to. Reads nothing."""

    def variables(self, tree: Tree) -> list[Any]:
        """The leaves that gradients can be taken by."""

    def differentiate(
        self, function: Computation, logprobs: Tree, variables: list[Any]
    ) -> tuple[Value, Gradient]:
        """Evaluate once, and take the gradient of the scalar with one backward pass."""

    def add_weighted(self, total: Any, weight: float, array: Any) -> Any:
        """``total + weight * array``, in a new array."""

    def norm(self, gradient: Gradient) -> Scalar:
        """The L2 norm of all of a gradient's arrays together, on their device."""


def _resolve_metrics(custom: Mapping[str, Scalar]) -> dict[str, float]:
    return to_python_many([custom])[0]


@dataclass(frozen=True, kw_only=True)
class BaseLossOutput:
    """The base loss. Numbers are read from their device when they are first looked at.

    Attributes:
        value: What the base loss function returned.
        grad_norm: L2 norm of its gradient; None when not tracked.
        custom: The further metrics that it returned.
    """

    value: Resolved[float] = Resolved(to_python)
    grad_norm: Resolved[float | None] = Resolved(to_python)
    custom: Resolved[Mapping[str, float]] = Resolved(_resolve_metrics)

    def to_dict(self) -> dict[str, Any]:
        """As ``base_loss`` in `CustomLossOutput.to_dict`."""
        return _without_none(
            {"value": self.value, "grad_norm": self.grad_norm, "custom": dict(self.custom)}
        )


@dataclass(frozen=True, kw_only=True)
class RegularizerOutput:
    """One regularizer's part. Numbers are read from their device when they are first looked at.

    Attributes:
        name: The spec's name.
        value: What its function returned.
        weight: The spec's weight.
        contribution: ``weight * value``, its part of the total loss.
        grad_norm: L2 norm of the gradient of the value; None when not tracked.
        grad_norm_weighted: ``weight * grad_norm``; None when not tracked.
        custom: The further metrics that it returned.
    """

    name: str
    value: Resolved[float] = Resolved(to_python)
    weight: float
    contribution: Resolved[float] = Resolved(to_python)
    grad_norm: Resolved[float | None] = Resolved(to_python)
    grad_norm_weighted: Resolved[float | None] = Resolved(to_python)
    custom: Resolved[Mapping[str, float]] = Resolved(_resolve_metrics)

    def to_dict(self) -> dict[str, Any]:
        """As under its name in `CustomLossOutput.to_dict`."""
        return _without_none(
            {
                "value": self.value,
                "weight": self.weight,
                "contribution": self.contribution,
                "grad_norm": self.grad_norm,
                "grad_norm_weighted": self.grad_norm_weighted,
                "custom": dict(self.custom),
            }
        )


@dataclass(frozen=True, kw_only=True)
class CustomLossOutput:
    """What `custom_loss` computed. Numbers are read from their device when first looked at.

    Attributes:
        loss: The total loss in the caller's framework, differentiable where that differentiates.
        loss_total: The same as a number.
        base_loss: The base loss.
        regularizers: The regularizers by name, in the order given.
        regularizer_total: Sum of their contributions; 0.0 without any.
        total_grad_norm: L2 norm of the gradient of ``loss``; None when not tracked.
        grad: The gradient of ``loss`` by ``logprobs``, a tree of the same shape, in float64, on
            numpy when tracked, where it is what takes the place of ``loss.backward()``. None
            when not tracked, and where the framework differentiates ``loss`` itself.
    """

    loss: Any = field(repr=False, compare=False)
    loss_total: Resolved[float] = Resolved(to_python)
    base_loss: BaseLossOutput
    regularizers: Mapping[str, RegularizerOutput]
    regularizer_total: Resolved[float] = Resolved(to_python)
    total_grad_norm: Resolved[float | None] = Resolved(to_python)
    grad: Tree = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All metrics as plain data; gradient norms are absent when they were not tracked.

        Example:
            >>> from regularizers import custom_loss
            >>> custom_loss([1.0], [2.0], lambda data, logprobs: 2.5).to_dict()
            {'loss_total': 2.5, 'base_loss': {'value': 2.5, 'custom': {}}, 'regularizers': {}, \
'regularizer_total': 0.0}
        """
        read_all([self, self.base_loss, *self.regularizers.values()])
        return _without_none(
            {
                "loss_total": self.loss_total,
                "base_loss": self.base_loss.to_dict(),
                "regularizers": {name: r.to_dict() for name, r in self.regularizers.items()},
                "regularizer_total": self.regularizer_total,
                "total_grad_norm": self.total_grad_norm,
            }
        )

    def to_json(self) -> str:
        """`to_dict` as JSON; NaN and the infinities are ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

        Example:
            >>> from regularizers import custom_loss
            >>> custom_loss([], [], lambda data, logprobs: float("nan")).to_json()
            '{"loss_total":"NaN","base_loss":{"value":"NaN","custom":{}},"regularizers":{},\
"regularizer_total":0.0}'
        """
        return orjson.dumps(jsonable(self.to_dict())).decode()


def _without_none(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if value is not None}
