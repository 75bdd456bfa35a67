"""What ``clipping.integrations.transformers`` refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.amp.grad_scaler import OptState
from torch.nn import Module

from clipping.backends.torch_parameters import layers_of
from clipping.clip_context import check_unhooked

if TYPE_CHECKING:
    from transformers import TrainingArguments


def check_arguments(args: TrainingArguments) -> None:
    """Raise ValueError for arguments under which a callback cannot clip, or not alone."""
    limit: float | None = args.max_grad_norm
    if limit is None:
        raise ValueError(
            "TrainingArguments(max_grad_norm=None) is an error in the Trainer's first step, which "
            "compares it with 0. Allowed beside ClipCallback: 0.0. Give max_grad_norm=0.0."
        )
    if limit > 0:
        raise ValueError(
            f"TrainingArguments(max_grad_norm={limit!r}) clips before ClipCallback "
            "does; the default is 1.0. Allowed beside it: 0.0. Give max_grad_norm=0.0."
        )
    if args.restore_callback_states_from_checkpoint:
        raise ValueError(
            "TrainingArguments(restore_callback_states_from_checkpoint=True) replaces the "
            "ClipCallback that was given, and its clipper, by a new one. Allowed beside it: False. "
            "Leave it out: ClipCallback restores its clipper on every resume."
        )
    if getattr(args, "deepspeed_plugin", None) is not None:
        raise ValueError(
            "ClipCallback cannot clip under DeepSpeed: the gradients are inside its engine. "
            "Allowed: one device, DDP, and FSDP2. Use one of these, or gradient_clipping of "
            "DeepSpeed's configuration without the callback."
        )
    optim = str(getattr(args.optim, "value", args.optim))
    if optim.endswith(("lomo", "_layerwise")):
        raise ValueError(
            f"TrainingArguments(optim={optim!r}) updates each parameter during the backward pass, "
            "before ClipCallback is asked. Allowed: optimizers that step after it. Use another, or "
            "remove the callback."
        )


def check_model(model: Module) -> None:
    """Raise TypeError for a model that is wrapped in FSDP1: in the first step it would be late."""
    layers_of(model)


def check_optimizer(optimizer: Any) -> None:
    """Raise RuntimeError if a `clip_context` is active on what accelerate has wrapped."""
    check_unhooked(getattr(optimizer, "optimizer", optimizer))


def check_unscaled(optimizer: Any) -> None:
    """Raise RuntimeError if the gradients of an optimizer of accelerate are still scaled.

    The ``Trainer`` unscales them while it measures their norm, but not where they are on several
    meshes, nor where a subclass measures in its own way.
    """
    scaler = getattr(optimizer, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return
    states = scaler._per_optimizer_states  # noqa: SLF001 -- nothing public tells without unscaling
    if states[id(optimizer.optimizer)]["stage"] is OptState.READY:
        raise RuntimeError(
            f"The gradients of this {type(optimizer.optimizer).__name__} are still multiplied by "
            "the GradScaler's scale, so a threshold means nothing: this Trainer has not unscaled "
            "them. Allowed: gradients on one mesh, whose norm transformers.Trainer measures. Use "
            "bf16=True, or call accelerator.unscale_gradients() in an overridden _get_grad_norm."
        )
