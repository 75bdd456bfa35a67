"""Torch: the gradients of a model, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor

from clipping.backends.torch_gradients import Kinds, TorchGradients
from clipping.backends.torch_memory import check_own_memory
from clipping.backends.torch_optimizer import before_step, check_optimizer
from clipping.backends.torch_parameters import parameters_of
from clipping.backends.torch_plan import Plan, plan_of_module, plan_of_tensors
from clipping.clipper import Clipper

__all__ = ["bare_gradients", "before_step", "check_optimizer", "gradients_of", "recognises"]

LAYOUTS: Final = {torch.strided, torch.sparse_coo}
DTYPES: Final = {
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
}


def recognises(parameter: object) -> bool:
    """Whether a parameter is a tensor."""
    return isinstance(parameter, Tensor)


def gradients_of(model: Any, clipper: Clipper) -> TorchGradients:
    """The gradients of a model: of every parameter that is trainable or holds one.

    Raises:
        TypeError: A gradient is of a layout or dtype that has no norm, or the model is wrapped in
            the first version of FSDP.
        ValueError: There is none, they are on several devices, or the clipper's scope does not fit
            the model.
    """
    if isinstance(model, torch.nn.Module):
        parameters = parameters_of(model)
    else:
        parameters = list({id(p): p for p in model.parameters()}.values())
    held = [p for p in parameters if p.requires_grad or p.grad is not None]
    gradients = [p.grad for p in held]
    kinds = check(gradients, lambda: _without_gradients(model, len(parameters), len(held)))
    if isinstance(model, torch.nn.Module):
        plan = plan_of_module(model, clipper, held)
    else:
        plan = plan_of_tensors(held, clipper)
    _check_shapes(plan, gradients)
    return TorchGradients(gradients, held, plan, kinds)


def bare_gradients(
    gradients: list[Tensor | None], weights: list[Tensor] | None, clipper: Clipper, without: str
) -> TorchGradients:
    """Gradients that are not held by one model.

    Args:
        gradients: None for a parameter that has none in this step.
        weights: The parameters; None if they are not known.
        clipper: Whose groups they are.
        without: What to say if there is none.

    Raises:
        TypeError: See `gradients_of`.
        ValueError: See `gradients_of`; or, if the parameters are not known, a gradient is given
            twice or some of its elements lie in the same place.
    """
    kinds = check(gradients, lambda: without)
    tensors = [g for g in gradients if g is not None] if weights is None else weights
    plan = plan_of_tensors(tensors, clipper)
    _check_shapes(plan, gradients)
    given = TorchGradients(gradients, weights, plan, kinds)
    if weights is None:
        check_own_memory(given.tensors)
    return given


def check(gradients: Sequence[Tensor | None], without: Callable[[], str]) -> Kinds:
    """Make sure that gradients are of one device, and of kinds that can be clipped.

    Args:
        gradients: None where there is none.
        without: What to say if all are None.

    Returns:
        What occurs among them.

    Raises:
        TypeError: One is of a layout or dtype that has no norm.
        ValueError: There is none, or they are on several devices.
    """
    tensors = [gradient for gradient in gradients if gradient is not None]
    if not tensors:
        raise ValueError(without())
    layouts = set(map(attrgetter("layout"), tensors))
    if not layouts <= LAYOUTS:
        raise TypeError(
            f"Cannot clip gradients of layout {_names(layouts - LAYOUTS)}. "
            f"Allowed: {_names(LAYOUTS)}. The gradients are untouched."
        )
    dtypes = set(map(attrgetter("dtype"), tensors))
    if not dtypes <= DTYPES:
        raise TypeError(
            f"Cannot clip gradients of dtype {_names(dtypes - DTYPES)}. "
            f"Allowed: {_names(DTYPES)}. The gradients are untouched."
        )
    if not all(map(attrgetter("is_cpu"), tensors)):
        _check_devices(set(map(attrgetter("device"), tensors)))
    return Kinds(dtypes, sparse=torch.sparse_coo in layouts)


def _check_shapes(plan: Plan, gradients: Sequence[Tensor | None]) -> None:
    """Make sure that gradients have the shapes of a plan, if it divides them into units.

    Raises:
        ValueError: One has another.
    """
    if not plan.groups.unitwise:
        return
    for index, (gradient, shape) in enumerate(zip(gradients, plan.shapes, strict=True)):
        if gradient is not None and gradient.shape != shape:
            raise ValueError(
                f"The gradient of parameter {index} is of shape {tuple(gradient.shape)}, the "
                f"parameter itself of {tuple(shape)}. Set .grad to None when you change .data. "
                "The gradients are untouched."
            )


def _check_devices(devices: set[torch.device]) -> None:
    if len(devices) > 1:
        raise ValueError(
            f"Gradients must all be on one device, got {_names(devices)}. The gradients are "
            "untouched. Clip those of each device by themselves, with a clipper of their own."
        )


def _names(kinds: Iterable[object]) -> str:
    return " and ".join(sorted(map(str, kinds)))


def _without_gradients(model: Any, parameters: int, trainable: int) -> str:
    name = type(model).__name__
    if not trainable:
        return (
            f"Cannot clip {name}: none of its {parameters} parameters is trainable, all have "
            "requires_grad=False. Call requires_grad_() on those that are to be trained."
        )
    return (
        f"Cannot clip a model without gradients, got {name} whose parameters all have .grad None. "
        "Call loss.backward() first."
    )
