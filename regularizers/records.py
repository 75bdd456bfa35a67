"""The frozen records of what a loss amounted to."""

# ruff: noqa: RUF009 -- Resolved() is a descriptor, one for each field, not a shared default
# ruff: noqa: PLW1641 -- dataclass writes __hash__ beside an __eq__ of ours too

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import orjson

from regularizers.backends import loaded
from regularizers.parsing import Node
from regularizers.protocols import Scalar
from regularizers.resolved import Resolved, read_all
from regularizers.trees import Tree
from telemetry.values import jsonable, to_python, to_python_many


def _resolve(number: Scalar) -> Any:
    value = to_python(number)
    # One NaN for all, so that records with NaN in the same places are equal.
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def _resolve_metrics(custom: Mapping[str, Scalar]) -> dict[str, float]:
    return {name: _resolve(number) for name, number in to_python_many([custom])[0].items()}


def _compared(record: Any) -> tuple[Any, ...]:
    # A tuple, in which the same NaN is equal to itself: from Python 3.13 on dataclasses compare
    # field by field by themselves, and then it is not.
    return tuple(getattr(record, one.name) for one in fields(record) if one.compare)


@dataclass(frozen=True, kw_only=True)
class BaseLossOutput:
    """The base loss. Numbers are read from their device when they are first looked at.

    Attributes:
        value: What the base loss function returned.
        grad_norm: L2 norm of its gradient; None when not tracked.
        custom: The further metrics that it returned.
    """

    value: Resolved[float] = Resolved(_resolve)
    grad_norm: Resolved[float | None] = Resolved(_resolve)
    custom: Resolved[Mapping[str, float]] = Resolved(_resolve_metrics)

    def __eq__(self, other: object) -> bool:
        """Of the same kind, with equal numbers; NaN is equal to NaN."""
        return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """As ``base_loss`` in `CustomLossOutput.to_dict`."""
        return _without_none(
            {"value": self.value, "grad_norm": self.grad_norm, "custom": dict(self.custom)}
        )

    @classmethod
    def _from(cls, node: Node) -> Self:
        node.check_keys(["value", "custom"], ["grad_norm"])
        return cls(
            value=node.number("value"),
            grad_norm=node.number_or_none("grad_norm"),
            custom=node.child("custom").numbers(),
        )


@dataclass(frozen=True, kw_only=True)
class RegularizerOutput:
    """One regularizer's part. Numbers are read from their device when they are first looked at.

    Attributes:
        name: The spec's name.
        value: What its function returned.
        weight: The spec's weight, as it was at this step.
        contribution: ``weight * value``, its part of the total loss.
        grad_norm: L2 norm of the gradient of the value; None when not tracked.
        grad_norm_weighted: ``weight * grad_norm``; None when not tracked.
        custom: The further metrics that it returned.
        asynchronous: Whether it was awaited.
        scheduled: Whether the spec's weight is a function of the step.
    """

    name: str
    value: Resolved[float] = Resolved(_resolve)
    weight: Resolved[float] = Resolved(_resolve)
    contribution: Resolved[float] = Resolved(_resolve)
    grad_norm: Resolved[float | None] = Resolved(_resolve)
    grad_norm_weighted: Resolved[float | None] = Resolved(_resolve)
    custom: Resolved[Mapping[str, float]] = Resolved(_resolve_metrics)
    asynchronous: bool = field(default=False, compare=False)
    scheduled: bool = field(default=False, repr=False, compare=False)

    def __eq__(self, other: object) -> bool:
        """Of the same kind, with equal numbers; NaN is equal to NaN."""
        return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

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

    @classmethod
    def _from(cls, name: str, node: Node) -> Self:
        node.check_keys(
            ["value", "weight", "contribution", "custom"], ["grad_norm", "grad_norm_weighted"]
        )
        return cls(
            name=name,
            value=node.number("value"),
            weight=node.number("weight"),
            contribution=node.number("contribution"),
            grad_norm=node.number_or_none("grad_norm"),
            grad_norm_weighted=node.number_or_none("grad_norm_weighted"),
            custom=node.child("custom").numbers(),
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
        metadata: Those of the ``custom_loss`` events.
        reported: Whether its events were sent when it was computed. Not if that was in compiled
            code: then `regularizers.emit` sends them.
    """

    loss: Any = field(repr=False, compare=False)
    loss_total: Resolved[float] = Resolved(_resolve)
    base_loss: BaseLossOutput
    regularizers: Mapping[str, RegularizerOutput]
    regularizer_total: Resolved[float] = Resolved(_resolve)
    total_grad_norm: Resolved[float | None] = Resolved(_resolve)
    grad: Tree = field(default=None, repr=False, compare=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    reported: bool = field(default=True, repr=False, compare=False)

    def __new__(cls, *_: object, **__: object) -> Self:
        """Also of one that is unpickled: jax, where it is used, has to know that it is a tree."""
        loaded()
        return super().__new__(cls)

    def __eq__(self, other: object) -> bool:
        """Of the same kind, with equal numbers; NaN is equal to NaN."""
        return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

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

    def __tf_flatten__(self) -> tuple[Any, tuple[Any, ...]]:
        """So that a ``tf.function`` can take and return it, and ``tf.nest`` map over it."""
        from regularizers.packing import pack  # noqa: PLC0415 -- it imports this module

        numbers, skeleton = pack(self)
        return skeleton, numbers

    @classmethod
    def __tf_unflatten__(cls, metadata: Any, components: tuple[Any, ...]) -> CustomLossOutput:
        """The other way round."""
        from regularizers.packing import unpack  # noqa: PLC0415 -- it imports this module

        return unpack(components, metadata)

    def to_json(self) -> str:
        """`to_dict` as JSON; NaN and the infinities are ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

        Example:
            >>> from regularizers import custom_loss
            >>> custom_loss([], [], lambda data, logprobs: float("nan")).to_json()
            '{"loss_total":"NaN","base_loss":{"value":"NaN","custom":{}},"regularizers":{},\
"regularizer_total":0.0}'
        """
        return orjson.dumps(jsonable(self.to_dict())).decode()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The output that `to_dict` was called on, but for what is not in it.

        ``loss`` and ``grad`` are None, ``metadata`` are empty, and no regularizer is
        ``asynchronous`` or ``scheduled``; outputs are compared without them.

        Args:
            data: What `to_dict` gave, or what a JSON reader made of `to_json`: the strings for NaN,
                the infinities and integers beyond 64 bits are read as these. A gradient norm that
                is None counts as absent.

        Raises:
            TypeError: Something is no dictionary, or no number.
            ValueError: A key is missing or unknown, or a string stands for no number.

        Example:
            >>> from regularizers import CustomLossOutput, custom_loss
            >>> output = custom_loss([1.0], [2.0], lambda data, logprobs: 2.5)
            >>> CustomLossOutput.from_dict(output.to_dict()) == output
            True
        """
        node = Node(data)
        node.check_keys(
            ["loss_total", "base_loss", "regularizers", "regularizer_total"], ["total_grad_norm"]
        )
        regularizers = node.child("regularizers").children()
        return cls(
            loss=None,
            loss_total=node.number("loss_total"),
            base_loss=BaseLossOutput._from(node.child("base_loss")),  # noqa: SLF001 -- of this module
            regularizers={
                name: RegularizerOutput._from(name, child)  # noqa: SLF001 -- as above
                for name, child in regularizers.items()
            },
            regularizer_total=node.number("regularizer_total"),
            total_grad_norm=node.number_or_none("total_grad_norm"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The output that `to_json` was called on, as `from_dict` has it.

        Raises:
            TypeError: As `from_dict`.
            ValueError: As `from_dict`, or it is no JSON.

        Example:
            >>> from regularizers import CustomLossOutput, custom_loss
            >>> output = custom_loss([], [], lambda data, logprobs: float("inf"))
            >>> CustomLossOutput.from_json(output.to_json()).loss_total
            inf
        """
        return cls.from_dict(orjson.loads(text))


def _without_none(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if value is not None}
