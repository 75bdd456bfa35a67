"""Hooks before the steps of torch optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


def check_optimizer(optimizer: object) -> None:
    """Raise TypeError for what is no ``torch.optim.Optimizer``, or wraps none."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {optimizer!r} "
            f"({type(optimizer).__name__}). The order is clip_context(model, optimizer, clipper)."
        )
    _hookable(optimizer)


def before_step(optimizer: Optimizer, act: Callable[[], None]) -> Callable[[], None]:
    """Register a hook that torch calls before every step; returns what removes it.

    Raises:
        TypeError: The optimizer is a wrapper of something without hooks.
    """

    def hook(hooked: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _check_step(hooked, args[1:], kwargs)
        act()

    # Under torch.compile(optimizer.step) it runs as it is.
    untraced = torch.compiler.disable(hook)  # type: ignore[no-untyped-call] # torch has no types for it
    return _hookable(optimizer).register_step_pre_hook(untraced).remove


def _hookable(optimizer: Optimizer) -> Optimizer:
    """The optimizer, or the one within if it is a mere wrapper, such as Accelerate's."""
    found: object = optimizer
    while isinstance(found, Optimizer):
        if hasattr(found, "_optimizer_step_pre_hooks"):
            return found
        found = getattr(found, "optimizer", None)
    raise TypeError(
        f"optimizer must be a torch.optim.Optimizer with hooks or a wrapper of one, got "
        f"{type(optimizer).__name__}, which has no hooks and whose .optimizer is "
        f"{type(getattr(optimizer, 'optimizer', None)).__name__}. Call clipping.apply(model, "
        "clipper) before its steps."
    )


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
