"""Torch: the gradients of a model, and hooks on its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from clipping.backends.torch_gradients import Kinds, TorchGradients
from clipping.backends.torch_parameters import parameters_of
from clipping.backends.torch_plan import plan_of_module, plan_of_tensors
from clipping.clipper import Clipper

LAYOUTS: Final = {torch.strided, torch.sparse_coo}


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
        ValueError: See `gradients_of`.
    """
    kinds = check(gradients, lambda: without)
    tensors = [g for g in gradients if g is not None] if weights is None else weights
    return TorchGradients(gradients, weights, plan_of_tensors(tensors, clipper), kinds)


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
    exact = {dtype for dtype in dtypes if not (dtype.is_floating_point or dtype.is_complex)}
    if exact:
        raise TypeError(
            f"Cannot clip gradients of dtype {_names(exact)}. "
            "Allowed: floating-point and complex dtypes. The gradients are untouched."
        )
    if not all(map(attrgetter("is_cpu"), tensors)):
        _check_devices(set(map(attrgetter("device"), tensors)))
    return Kinds(dtypes, sparse=torch.sparse_coo in layouts)


def _check_devices(devices: set[torch.device]) -> None:
    if len(devices) > 1:
        raise ValueError(
            f"Gradients must all be on one device, got {_names(devices)}. The gradients are "
            "untouched. Clip those of each device by themselves, with a clipper of their own."
        )


def check_optimizer(optimizer: object) -> None:
    """Raise TypeError for what is no ``torch.optim.Optimizer``."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {optimizer!r} "
            f"({type(optimizer).__name__}). The order is clip_context(model, optimizer, clipper)."
        )


def before_step(optimizer: Optimizer, act: Callable[[], None]) -> Callable[[], None]:
    """Register a hook that torch calls before every step; returns what removes it."""

    def hook(hooked: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _check_step(hooked, args[1:], kwargs)
        act()

    # Under torch.compile(optimizer.step) it runs as it is.
    untraced = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return optimizer.register_step_pre_hook(untraced).remove


def _check_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = type(optimizer).__name__
    if (args[0] if args else kwargs.get("closure")) is not None:
        raise RuntimeError(
            f"{name}.step(closure) computes new gradients after clip_context has clipped. "
            "Call the closure yourself and then optimizer.step(), or call "
            "clipping.apply(model, clipper) at the end of the closure, outside clip_context."
        )
    if getattr(optimizer, "grad_scale", None) is not None:
        raise RuntimeError(
            f"The gradients of this fused {name} are still multiplied by the GradScaler's scale, "
            "so a threshold means nothing. Call scaler.unscale_(optimizer) before "
            "scaler.step(optimizer)."
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
