"""What ``clipping.integrations.lightning`` refuses at the start of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from clipping.backends.torch_parameters import parameters_of
from clipping.clip_context import check_unhooked

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_OUT_OF_REACH: Final = {
    "DeepSpeedStrategy": "the gradients are inside DeepSpeed's engine",
    "FSDPStrategy": "FSDP1 flattens the parameters of several layers into one",
}


def check_own_clipping(trainer: Trainer, module: LightningModule) -> None:
    """Raise ValueError if Lightning would clip too."""
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val!r}) would clip again what "
            "ClipCallback has clipped. Allowed beside it: None, which is the default. Leave "
            "gradient_clip_val out."
        )
    defined_in = module.configure_gradient_clipping.__module__.partition(".")[0]
    if defined_in not in ("lightning", "pytorch_lightning"):
        raise ValueError(
            f"{type(module).__name__} overrides configure_gradient_clipping, which Lightning calls "
            "after ClipCallback has clipped. Allowed beside it: the method of LightningModule. "
            "Remove the override, or the callback."
        )


def check_strategy(trainer: Trainer) -> None:
    """Raise ValueError for a strategy under which gradients are out of reach."""
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _OUT_OF_REACH:
            raise ValueError(
                f"ClipCallback cannot clip under {kind.__name__}: {_OUT_OF_REACH[kind.__name__]}. "
                "Allowed: one device, DDP, and ModelParallelStrategy (FSDP2). Use one of these, or "
                "the clipping of that strategy without the callback."
            )


def check_optimizer(optimizer: Optimizer, trainer: Trainer) -> None:
    """Make sure that there is one gradient before each step of an optimizer, and unscaled.

    Raises:
        TypeError: There are several.
        ValueError: It is unscaled inside the step.
        RuntimeError: A `clip_context` is active on the optimizer.
    """
    check_unhooked(optimizer)
    name = type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise TypeError(
            f"ClipCallback cannot clip for {name}, which computes several gradients in one step. "
            "Allowed: optimizers that step on one gradient. Use another, or remove the callback."
        )
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            f"This fused {name} takes the GradScaler's scale out of the gradients inside its step, "
            "where ClipCallback cannot clip them. Allowed under precision='16-mixed': optimizers "
            f"that are not fused. Give {name}(..., fused=False), or precision='bf16-mixed'."
        )


def parameters_of_others(optimizer: Optimizer, module: LightningModule) -> list[Tensor]:
    """The parameters of a module that an optimizer does not step.

    Raises:
        ValueError: It steps some that are not the module's.
    """
    own = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    of_module = parameters_of(module)
    foreign = own.keys() - set(map(id, of_module))
    if foreign:
        name, kind = type(optimizer).__name__, type(module).__name__
        raise ValueError(
            f"{name} steps {len(foreign)} of its {len(own)} parameters without ClipCallback seeing "
            f"their gradients: they are not in {kind}.parameters(). Allowed: parameters of the "
            f"LightningModule. Make what holds them an attribute of {kind}, or leave them out of "
            f"{name}."
        )
    return [p for p in of_module if id(p) not in own]
