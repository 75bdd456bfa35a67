"""Clipping of torch gradients that are not held by one model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.engine import clip_once
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import torch

    from clipping.backends import torch as backend
else:
    torch = import_extra("torch", extra="torch", feature="clipping.torch")
    backend = import_extra("clipping.backends.torch", extra="torch", feature="clipping.torch")

__all__ = ["apply_grads"]


def apply_grads(
    params_or_grads: torch.Tensor | Iterable[torch.Tensor],
    clipper: Clipper,
    on_metrics: OnMetrics | None = None,
) -> list[torch.Tensor]:
    """Clip gradients in place.

    Args:
        params_or_grads: Parameters, whose ``.grad`` is clipped where there is one, or gradients;
            floating-point or complex, dense or sparse (COO), of any shape, all on one device.
            Parameters are told by being ``torch.nn.Parameter`` or leaves that require gradients.
            A parameter given twice counts once. AGC needs parameters, and ``scope="per_layer"`` a
            whole model, which `clipping.apply` takes.
        clipper: What decides; it remembers the norms, so use the same one every step.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's (which
            waits for the device). If it raises, that is announced like a failing handler.

    Returns:
        The gradients, scaled. Gradients that are all 0 have norm 0 and stay as they are; for NaN
        and infinity see ``on_nonfinite`` of the clipper.

    Raises:
        TypeError: Something is no tensor, or of a layout or dtype that has no norm; or the clipper
            is none.
        ValueError: There is no gradient, parameters and gradients are mixed, they are on several
            devices, or the clipper needs weights or layers that are not given. Or a gradient is
            given twice, or several of its elements lie in the same place, as
            ``torch.autograd.grad`` may return it; a parameter's only if it is to be scaled.
        FloatingPointError: See ``on_nonfinite`` of the clipper.

    Example:
        >>> import torch, clipping
        >>> clipper = clipping.AutoClip(mode="percentile")
        >>> clipping.torch.apply_grads([torch.tensor([3.0, 4.0])], clipper)
        [tensor([3., 4.])]
        >>> clipper.threshold_any()
        5.0
    """
    check_clipper(clipper)
    tensors = _listed(params_or_grads)
    weights = None
    gradients: list[torch.Tensor | None] = [*tensors]
    if _are_parameters(tensors):
        tensors = list({id(tensor): tensor for tensor in tensors}.values())
        weights = [p for p in tensors if p.requires_grad or p.grad is not None]
        gradients = [p.grad for p in weights]
    elif clipper.weighs and tensors:
        raise ValueError(
            f"{type(clipper).__name__} holds gradients against weights, and bare gradients have "
            "none: give the parameters, whose .grad is clipped. The gradients are untouched."
        )
    without = _without_gradients(tensors)
    given = backend.bare_gradients(gradients, weights, clipper, without)
    clip_once(given, clipper, on_metrics)
    return [gradient for gradient in gradients if gradient is not None]


def _listed(given: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        return [given]
    module = isinstance(given, torch.nn.Module) and not isinstance(given, torch.nn.ParameterList)
    if module or not isinstance(given, Iterable):
        raise TypeError(
            "params_or_grads must be a torch tensor or an iterable of them, got "
            f"{type(given).__name__}. Give model.parameters() or gradients; of a whole model: "
            "clipping.apply(model, clipper)."
        )
    return list(given)


def _are_parameters(tensors: list[torch.Tensor]) -> bool:
    if set(map(type, tensors)) == {torch.nn.Parameter}:
        return True
    parameters = sum(map(_is_parameter, tensors))
    if 0 < parameters < len(tensors):
        raise ValueError(
            f"params_or_grads must be parameters or gradients, got {parameters} parameters among "
            f"{len(tensors)} tensors. The gradients are untouched; clip parameters in one call, "
            "gradients in another."
        )
    return parameters > 0


def _without_gradients(tensors: list[torch.Tensor]) -> str:
    return (
        f"There is no gradient to clip: got {len(tensors)} tensors, none of which is a gradient or "
        "has a .grad. Call loss.backward() first."
    )


def _is_parameter(tensor: object) -> bool:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(
            f"params_or_grads must be torch tensors, got {tensor!r} ({type(tensor).__name__}) "
            "among them. Give model.parameters() or gradients."
        )
    return isinstance(tensor, torch.nn.Parameter) or (tensor.requires_grad and tensor.is_leaf)
