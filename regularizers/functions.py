"""The functions that make up a loss, with what to call them in a message."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Self

from regularizers.checks import check_function
from regularizers.records import Backend, GradFunction, LossFunction
from regularizers.spec import RegularizerSpec


class Function(NamedTuple):
    """A loss function, what to call it, and its gradient where it has one."""

    label: str
    call: LossFunction
    grad: GradFunction | None

    @classmethod
    def of_base_loss(cls, base_loss_fn: LossFunction, base_grad_fn: GradFunction | None) -> Self:
        """The base loss, checked.

        Raises:
            TypeError: One of the two cannot be called with two arguments.
        """
        check_function("custom_loss", "base_loss_fn", base_loss_fn)
        if base_grad_fn is not None:
            check_function("custom_loss", "base_grad_fn", base_grad_fn)
        return cls("base_loss_fn", base_loss_fn, base_grad_fn or gradient_of(base_loss_fn))

    @classmethod
    def of_regularizer(cls, spec: RegularizerSpec) -> Self:
        """A regularizer, which its spec has checked."""
        return cls(f"Regularizer {spec.name!r}", spec.fn, spec.grad_fn or gradient_of(spec.fn))


def gradient_of(function: LossFunction) -> GradFunction | None:
    """The gradient that a function brings along as its ``grad``, as the penalties do.

    Through ``functools.partial`` too, with the same arguments.
    """
    if isinstance(function, partial):
        grad = gradient_of(function.func)
        return None if grad is None else partial(grad, *function.args, **function.keywords)
    return getattr(function, "grad", None)


def require_gradients(backend: Backend, functions: Iterable[Function]) -> None:
    """Raise ValueError if a framework does not differentiate and a function has no gradient."""
    missing = [function.label for function in functions if function.grad is None]
    if missing and not backend.differentiates:
        raise ValueError(
            f"track_grad_norms=True, but {backend.name} does not differentiate, and no gradient "
            f"was given for: {', '.join(missing)}. Give base_grad_fn= to custom_loss and grad_fn= "
            "to each RegularizerSpec, functions of (data, logprobs) that return the gradient by "
            "logprobs, or call with track_grad_norms=False."
        )
