"""What a regularizer is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from regularizers.checks import (
    A_NUMBER_OR_FUNCTION,
    check_function,
    check_name,
    check_weight,
    check_weight_function,
)
from regularizers.protocols import GradFunction, LossFunction, Weight


@dataclass(frozen=True)
class RegularizerSpec:
    """A named, weighted term that is added to the base loss.

    Args:
        fn: ``fn(data, logprobs)`` returns a scalar, or ``(scalar, {metric: number})``. A coroutine
            function, or one that returns a coroutine or a ``concurrent.futures.Future``, is
            awaited.
        weight: Factor of the value in the total loss, finite and at least 0, or a function of the
            step that returns one, such as those of `regularizers.schedules` or of optax. A 0-d
            tensor that it returns is not read, unless the value is another framework's. With 0
            ``fn`` is evaluated and reported all the same.
        name: Its key in the output and its ``regularizer_name`` in the events, of printable
            characters.
        grad_fn: ``grad_fn(data, logprobs)`` returns the gradient of the value by ``logprobs``, a
            tree of the same shape. Needed for gradient norms on numpy only, and not there either
            if ``fn`` is one of `regularizers.penalties`.

    Raises:
        TypeError: The name is no string, the weight neither a number nor a function of one
            argument, or a function cannot be called with two arguments.
        ValueError: The name is empty or has control characters, or the weight is negative,
            infinite or NaN.

    Example:
        >>> from regularizers import penalties
        >>> RegularizerSpec(fn=penalties.l1, weight=0.01, name="sparsity").weight
        0.01
    """

    fn: LossFunction
    weight: Weight
    name: str
    grad_fn: GradFunction | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        label = f"Regularizer {self.name!r}"
        if callable(self.weight):
            check_weight_function(label, self.weight)
        else:
            weight = check_weight(f"{label} has the weight ", self.weight, A_NUMBER_OR_FUNCTION)
            object.__setattr__(self, "weight", weight)
        check_function(label, "fn", self.fn, may_be_awaited=True)
        if self.grad_fn is not None:
            check_function(label, "grad_fn", self.grad_fn)


def check_specs(regularizers: object) -> list[RegularizerSpec]:
    """Return the specs as a list, or raise.

    Raises:
        TypeError: It is no list of specs.
        ValueError: Two have the same name.
    """
    if not isinstance(regularizers, Iterable) or isinstance(regularizers, str):
        raise TypeError(
            f"custom_loss got regularizers={regularizers!r} ({type(regularizers).__name__}). "
            "It takes a list: [RegularizerSpec(fn=..., weight=..., name=...)]."
        )
    specs = list(regularizers)
    names: list[str] = []
    for spec in specs:
        if not isinstance(spec, RegularizerSpec):
            raise TypeError(
                f"custom_loss got {spec!r} ({type(spec).__name__}) among its regularizers. "
                "Each is a RegularizerSpec(fn=..., weight=..., name=...)."
            )
        if spec.name in names:
            raise ValueError(
                f"custom_loss got two regularizers with the name {spec.name!r}. "
                "Each needs a name of its own, because the output is keyed by it."
            )
        names.append(spec.name)
    return specs
