"""Clipping before every step of an optimizer, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from clipping import backends, deferred
from clipping.autoclip import AutoClip
from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.engine import clip
from clipping.on_metrics import Listener
from clipping.protocols import Backend
from clipping.records import OnMetrics

_hooked: dict[int, Any] = {}
"""The optimizers that a context is active on, and those that they wrap, by their id: they need not
be hashable."""
MOST_WRAPPERS: Final = 8


def clip_context(
    model: Any,
    optimizer: Any = None,
    clipper: Clipper | None = None,
    on_metrics: OnMetrics | None = None,
) -> AbstractContextManager[Clipper]:
    """Clip a model's gradients before every step of an optimizer inside the block.

    On torch it is ``optimizer.register_step_pre_hook``, on NumPy ``optimizer.step`` is wrapped on
    the instance. Both are undone however the block is left.

    Args:
        model: As for `apply`; all its gradients are clipped.
        optimizer: A ``torch.optim.Optimizer`` or, for a NumPy model, any object with a ``step()``.
            Required, since nothing else says when to clip; without one, call `apply` yourself.
        clipper: What decides; a new ``AutoClip()`` if none is given.
        on_metrics: Called with a `MetricsRecord` of each group in every step, whose numbers are
            Python's (which waits for the device). If it raises, that is announced like a failing
            handler and it is not called again in this block.

    Returns:
        A context manager that gives the clipper.

    Raises:
        TypeError: The model, the optimizer, the clipper or the callback cannot be used.
        ValueError: There is no optimizer, or the model has no parameters.
        RuntimeError: On entering: another context is active on this optimizer. In a step: it was
            given a closure, which would compute new gradients after the clipping; or it is a
            fused optimizer under a ``GradScaler`` whose gradients are still scaled.

    A step raises what `apply` raises.

    Example:
        >>> import numpy as np, clipping
        >>> from types import SimpleNamespace
        >>> weight = SimpleNamespace(data=np.zeros(1), grad=np.ones(1))
        >>> model = SimpleNamespace(parameters=lambda: [weight])
        >>> optimizer = SimpleNamespace(step=lambda: print("stepped"))
        >>> with clip_context(model, optimizer, clipping.AutoClip(mode="percentile")) as clipper:
        ...     optimizer.step()
        stepped
        >>> clipper.threshold_any()
        1.0
    """
    if optimizer is None:
        raise ValueError(
            "clip_context needs the optimizer before whose steps it is to clip, got None. "
            "Give optimizer=..., or call clipping.apply(model, clipper) before each step."
        )
    clipper = AutoClip() if clipper is None else clipper
    check_clipper(clipper)
    backend = backends.backend_of(model)
    backend.check_optimizer(optimizer)
    listener = None if on_metrics is None else Listener(on_metrics)
    return _active(backend, model, optimizer, clipper, listener)


def check_unhooked(optimizer: object) -> None:
    """Raise RuntimeError if a context is active on an optimizer."""
    if any(id(part) in _hooked for part in _unwrapped(optimizer)):
        raise RuntimeError(
            f"A clip_context is active on this {type(optimizer).__name__}, so its gradients would "
            "be clipped twice. Allowed: one context per optimizer at a time, and in it plain "
            "optimizer.step(). Leave the other block first."
        )


@contextmanager
def _active(
    backend: Backend, model: Any, optimizer: Any, clipper: Clipper, listener: Listener | None
) -> Iterator[Clipper]:
    check_unhooked(optimizer)
    undo = backend.before_step(
        optimizer, lambda: clip(backend.gradients_of(model, clipper), clipper, listener)
    )
    covered = {id(part): part for part in _unwrapped(optimizer)}
    _hooked.update(covered)
    try:
        yield clipper
    finally:
        for key in covered:
            del _hooked[key]
        undo()
        deferred.settle_all()


def _unwrapped(optimizer: Any) -> list[Any]:
    """An optimizer, the one that it wraps, as Accelerate's and Fabric's do, and so on."""
    parts = [optimizer]
    while len(parts) < MOST_WRAPPERS:
        within = getattr(parts[-1], "optimizer", None)
        if not callable(getattr(within, "step", None)):
            break
        parts.append(within)
    return parts
