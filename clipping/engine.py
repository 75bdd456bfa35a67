"""One clipping of one set of gradients: measure, decide, scale, remember, report."""

from __future__ import annotations

import telemetry
from clipping import emission
from clipping.clipper import Clipper
from clipping.nonfinite import refusal
from clipping.on_metrics import Listener
from clipping.records import Decision, Gradients, Key, OnMetrics


def clip(gradients: Gradients, clipper: Clipper, listener: Listener | None = None) -> None:
    """Clip gradients inside a ``("smartclip", "clip")`` span.

    Args:
        gradients: What to clip.
        clipper: What decides, and remembers.
        listener: The caller's ``on_metrics``.

    Raises:
        FloatingPointError: Policy ``"raise"`` met a NaN or an infinity. Gradients and history are
            untouched.
        ValueError: The clipper's history is of other groups.
    """
    about = {
        "algo": clipper.algo,
        "scope": clipper.scope,
        "backend": gradients.backend,
        "dry_run": clipper.dry_run,
    }
    with telemetry.span(emission.CLIP, about) as span:
        ops, keys = gradients.ops, gradients.keys
        before = clipper.memory.recall(ops, keys, clipper.init)
        decision, after = clipper.update(ops, before, gradients.norms())
        _check_finite(gradients, clipper, decision)
        if not clipper.dry_run:
            gradients.rescale(decision)
        clipper.memory.keep(ops, keys, after)
        emission.emit_groups(gradients, clipper, decision, listener)
        if telemetry.enabled(emission.STOP):
            span.measure(emission.totals(ops, decision))
            span.annotate(emission.outcome(ops, decision))


def clip_once(gradients: Gradients, clipper: Clipper, on_metrics: OnMetrics | None) -> None:
    """Clip gradients for a caller that is no context: its ``on_metrics`` serves this one step."""
    if on_metrics is None:
        clip(gradients, clipper)
    else:
        clip(gradients, clipper, Listener(on_metrics))


def _check_finite(gradients: Gradients, clipper: Clipper, decision: Decision) -> None:
    raises = clipper.policy == "raise" and not clipper.dry_run
    if not (raises or gradients.ops.on_host):
        return
    flags = gradients.ops.to_host(decision.nonfinite)
    if not flags.any():
        return
    offending: list[Key] = [key for key, bad in zip(gradients.keys, flags, strict=True) if bad]
    emission.emit_nonfinite(gradients.ops, clipper, decision, offending)
    if raises:
        total = gradients.ops.to_host(emission.model_norm(gradients.ops, decision.norms))
        raise refusal(offending, len(gradients.keys), float(total))
