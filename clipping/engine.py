"""One clipping of one set of gradients: measure, decide, remember, scale, report."""

from __future__ import annotations

import numpy as np

import telemetry
from clipping import deferred, emission
from clipping.clipper import Clipper
from clipping.nonfinite import refusal
from clipping.on_metrics import Listener
from clipping.protocols import Gradients
from clipping.records import Measured, OnMetrics


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
    with telemetry.span(emission.CLIP, emission.about(clipper, gradients.backend)) as span:
        ops, groups = gradients.ops, gradients.groups
        measured = gradients.measure(weights=clipper.weighs)
        if clipper.policy == "raise" and not clipper.dry_run:
            _refuse_nonfinite(gradients, clipper, measured)
        before = clipper.memory.recall(clipper, ops, groups.names, groups.rows)
        decision, after = clipper.update(ops, before, measured)
        clipper.memory.keep(ops, groups.names, after)
        if not clipper.dry_run:
            gradients.rescale(decision)
        emission.report_nonfinite(ops, groups, clipper, decision)
        present = gradients.present()
        emission.emit_groups(ops, groups, clipper, decision, listener, present)
        if telemetry.enabled(emission.STOP):
            span.measure(emission.totals(ops, groups, measured, decision, present))
            span.annotate(emission.outcome(ops, decision, present))
    if not ops.on_host:
        deferred.settle()


def clip_once(gradients: Gradients, clipper: Clipper, on_metrics: OnMetrics | None) -> None:
    """Clip gradients with a callback that lives for this one time."""
    clip(gradients, clipper, None if on_metrics is None else Listener(on_metrics))


def _refuse_nonfinite(gradients: Gradients, clipper: Clipper, measured: Measured) -> None:
    ops, groups = gradients.ops, gradients.groups
    flags = np.asarray(~ops.to_host(ops.isfinite(measured.norms)))
    if flags.any():
        total = float(ops.to_host(emission.model_norm(ops, measured.norms)))
        emission.emit_nonfinite(groups, clipper, flags, total)
        raise refusal(groups.named(flags), len(groups.names), total)
