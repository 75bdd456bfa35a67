"""The functions that make up a loss, with what to call them in a message."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Self

from regularizers.checks import check_function
from regularizers.protocols import Backend, GradFunction, LossFunction
from regularizers.spec import RegularizerSpec
from regularizers.waiting import is_coroutine_function


class Function(NamedTuple):
    """A loss function, what to call it, and its gradient where it has one."""

    name: str
    label: str
    call: LossFunction
    grad: GradFunction | None
    is_async: bool
    """Whether it is a coroutine function."""
    is_scheduled: bool = False
    """Whether its weight is a function of the step."""

    @classmethod
    def of_base_loss(cls, base_loss_fn: LossFunction, base_grad_fn: GradFunction | None) -> Self:
        """The base loss, checked.

        Raises:
            TypeError: One of the two cannot be called with two arguments.
        """
        check_function("custom_loss", "base_loss_fn", base_loss_fn)
        if base_grad_fn is not None:
            check_function("custom_loss", "base_grad_fn", base_grad_fn)
        grad = base_grad_fn or gradient_of(base_loss_fn)
        return cls("base_loss_fn", "base_loss_fn", base_loss_fn, grad, is_async=False)

    @classmethod
    def of_regularizer(cls, spec: RegularizerSpec) -> Self:
        """A regularizer, which its spec has checked."""
        return cls(
            spec.name,
            f"Regularizer {spec.name!r}",
            spec.fn,
            spec.grad_fn or gradient_of(spec.fn),
            is_async=is_coroutine_function(spec.fn),
            is_scheduled=callable(spec.weight),
        )

    def calling(self, function: LossFunction) -> Self:
        """The same with something else to call."""
        return self._replace(call=function)


def gradient_of(function: LossFunction) -> GradFunction | None:
    """The gradient that a function brings along as its ``grad``, as the penalties do.

    Through ``functools.partial`` too, with the same arguments.
    """
    if isinstance(function, partial):
        grad = gradient_of(function.func)
        return None if grad is None else partial(grad, *function.args, **function.keywords)
    grad = getattr(function, "grad", None)
    return grad if callable(grad) else None  # else it is something else by that name


def require_gradients(backend: Backend, functions: Iterable[Function]) -> None:
    """Check the gradients that functions bring along, where a framework does not differentiate.

    Raises:
        TypeError: One cannot be called with two arguments.
        ValueError: A function has none.
    """
    if backend.differentiates:
        return
    missing = []
    for function in functions:
        if function.grad is None:
            missing.append(function.label)
        else:
            check_function(function.label, "grad", function.grad)
    if missing:
        raise ValueError(
            f"track_grad_norms=True, but {backend.name} does not differentiate, and no gradient "
            f"was given for: {', '.join(missing)}. Give base_grad_fn= to custom_loss and grad_fn= "
            "to each RegularizerSpec, functions of (data, logprobs) that return the gradient by "
            "logprobs, or call with track_grad_norms=False."
        )
