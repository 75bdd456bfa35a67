"""The clipping of one optimizer step of a trainer's fit, as the callbacks of torch share it."""

from __future__ import annotations

from typing import Any

import telemetry
from clipping.backends import backend_of
from clipping.clipper import Clipper
from clipping.engine import clip
from clipping.on_metrics import Listener
from clipping.records import OnMetrics
from telemetry.ambient import ambient_metadata


def clip_step(
    model: Any, clipper: Clipper, listener: Listener | None, *, step: int, epoch: int
) -> None:
    """Clip the gradients that a model holds, with the step in the metadata of the events.

    Args:
        model: A ``torch.nn.Module`` after the backward pass.
        clipper: What decides, and remembers.
        listener: The caller's ``on_metrics`` of this fit.
        step: What the events carry as ``step``, unless a ``telemetry.context`` around says another.
        epoch: Likewise.

    Raises:
        TypeError: A gradient is of a kind that cannot be clipped.
        ValueError: There is no gradient, they are on several devices, or the clipper does not fit
            the model.
        FloatingPointError: See ``on_nonfinite`` of the clipper.
    """
    around = ambient_metadata() or {}
    unsaid = {k: v for k, v in (("step", step), ("epoch", epoch)) if k not in around}
    with telemetry.context(**unsaid):
        clip(backend_of(model).gradients_of(model, clipper), clipper, listener)


def listener_of(on_metrics: OnMetrics | None) -> Listener | None:
    """A listener for one fit: one that failed in an earlier fit is called again.

    Raises:
        TypeError: ``on_metrics`` is not callable.
    """
    return None if on_metrics is None else Listener(on_metrics)


def refuse_after_acting() -> None:
    """Raise RuntimeError for a callback that comes after one that acts."""
    raise RuntimeError(
        "An earlier ClipCallback of this trainer has changed the gradients before this one sees "
        "them. Allowed: one ClipCallback that acts, and before it any whose clippers have "
        "dry_run=True. Remove one, or move it forward in callbacks=[...]."
    )
