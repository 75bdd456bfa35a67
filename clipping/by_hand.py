"""Clipping when the caller says so: before a step, or together with one."""

from __future__ import annotations

from typing import Any, TypeVar

from clipping import backends
from clipping.checks import check_clipper
from clipping.clip_context import check_unhooked
from clipping.clipper import Clipper
from clipping.engine import clip_once
from clipping.records import OnMetrics

Model = TypeVar("Model")


def apply(model: Model, clipper: Clipper, on_metrics: OnMetrics | None = None) -> Model:
    """Clip the gradients that a model holds, in place.

    On an accelerator nothing is read: what the events measure are scalars of the device, the
    ``outcome`` is left out, and non-finite gradients show as a ``grad_norm`` that is not finite.

    Args:
        model: A ``torch.nn.Module``, or anything whose ``parameters()`` gives trainable torch
            tensors or objects with NumPy arrays ``.data`` and ``.grad``. Parameters whose
            gradient is None take no part.
        clipper: What decides; it remembers the norms, so use the same one every step.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's (which
            waits for the device). If it raises, that is announced like a failing handler.

    Returns:
        The model.

    Raises:
        TypeError: The model, the clipper or a gradient is of a kind that cannot be used.
        ValueError: There are no parameters or no gradients, or they are on several devices.
        FloatingPointError: See ``on_nonfinite`` of the clipper. Gradients that are all 0 have norm
            0 and stay as they are.

    Example:
        >>> import numpy as np, clipping
        >>> from types import SimpleNamespace
        >>> weight = SimpleNamespace(data=np.zeros(2), grad=np.array([3.0, 4.0]))
        >>> model = SimpleNamespace(parameters=lambda: [weight])
        >>> clipper = clipping.AutoClip(mode="percentile")
        >>> clipping.apply(model, clipper) is model
        True
        >>> clipper.threshold_any()
        5.0
    """
    check_clipper(clipper)
    backend = backends.backend_of(model)
    clip_once(backend.gradients_of(model, clipper), clipper, on_metrics)
    return model


def step(model: Any, optimizer: Any, clipper: Clipper, on_metrics: OnMetrics | None = None) -> Any:
    """Clip as `apply` does, then call ``optimizer.step()``.

    Args:
        model: As for `apply`.
        optimizer: Anything with a ``step()``.
        clipper: As for `apply`.
        on_metrics: As for `apply`.

    Returns:
        What ``optimizer.step()`` returns.

    Raises:
        RuntimeError: A `clip_context` clips before this optimizer's steps already.
        TypeError: The optimizer has no ``step``; or as `apply` raises.
        ValueError: As `apply` raises.
        FloatingPointError: As `apply` raises.

    Example:
        >>> import numpy as np, clipping
        >>> from types import SimpleNamespace
        >>> weight = SimpleNamespace(data=np.zeros(1), grad=np.ones(1))
        >>> model = SimpleNamespace(parameters=lambda: [weight])
        >>> optimizer = SimpleNamespace(step=lambda: "stepped")
        >>> clipping.step(model, optimizer, clipping.AutoClip())
        'stepped'
    """
    if not callable(getattr(optimizer, "step", None)):
        raise TypeError(
            f"optimizer must have a step() method, got {optimizer!r} ({type(optimizer).__name__}). "
            "The order is clipping.step(model, optimizer, clipper)."
        )
    check_unhooked(optimizer)
    apply(model, clipper, on_metrics)
    return optimizer.step()
