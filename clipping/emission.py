"""The events of a clipping, as the catalogue has them.

On an accelerator measurements are scalars of the device, and what would have to be read to be
known is left out: the ``outcome``, and the non-finite event (``grad_norm`` is not finite then).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import telemetry
from clipping.clipper import Clipper
from clipping.on_metrics import Listener
from clipping.records import Array, Decision, Gradients, Key, Ops

CLIP: Final = ("smartclip", "clip")
STOP: Final = (*CLIP, "stop")
GROUP: Final = (*CLIP, "group")
NONFINITE: Final = (*CLIP, "nonfinite")


def model_norm(ops: Ops, norms: Array) -> Array:
    """The norm of the whole model's gradient, from those of its groups."""
    return norms[0] if norms.shape[0] == 1 else ops.norm(norms)


def totals(ops: Ops, decision: Decision) -> dict[str, Any]:
    """The measurements of the stop event."""
    groups = decision.scale.shape[0]
    kept = ops.where(decision.zeroed, 0.0, decision.norms)
    measured = {
        "grad_norm": ops.export(model_norm(ops, decision.norms)),
        "clipped_grad_norm": ops.export(model_norm(ops, kept * decision.scale)),
        "scale": ops.export(ops.min(decision.scale)),
        "groups": groups,
        "groups_clipped": ops.export(ops.sum(decision.scale < 1)[0]),
    }
    if groups == 1:
        measured |= {name: ops.export(limit[0]) for name, limit in decision.limits.items()}
    return measured


def outcome(ops: Ops, decision: Decision) -> dict[str, str]:
    """The metadata of the stop event; nothing where it would have to be read from a device."""
    if not ops.on_host:
        return {}
    if decision.zeroed.all():
        return {"outcome": "skipped"}
    return {"outcome": "applied" if (decision.scale < 1).any() else "unclipped"}


def emit_nonfinite(
    ops: Ops, clipper: Clipper, decision: Decision, offending: Sequence[Key]
) -> None:
    """Say which groups have a NaN or an infinity."""
    telemetry.execute(
        NONFINITE,
        {"grad_norm": ops.export(model_norm(ops, decision.norms)), "count": len(offending)},
        {"algo": clipper.algo, "keys": tuple(offending), "policy": clipper.policy},
    )


def emit_groups(
    gradients: Gradients, clipper: Clipper, decision: Decision, listener: Listener | None
) -> None:
    """Report each group, if anybody listens."""
    on_bus = telemetry.enabled(GROUP)
    if not on_bus and listener is None:
        return
    columns = _columns(gradients.ops, decision)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    about: dict[str, Any] = {"algo": clipper.algo, "scope": clipper.scope}
    if on_bus:
        for key, row in zip(gradients.keys, rows, strict=True):
            telemetry.execute(GROUP, row, {**about, "key": key})
    if listener is not None:
        for key, row in zip(gradients.keys, telemetry.values.to_python_many(rows), strict=True):
            listener.tell(GROUP, row, {**about, "key": key})


def _columns(ops: Ops, decision: Decision) -> dict[str, list[Any]]:
    """The measurements of the group events, each of all groups."""
    arrays = {
        "grad_norm": decision.norms,
        **decision.limits,
        "scale": decision.scale,
        "clipped": decision.scale < 1,
    }
    return {name: ops.export(array) for name, array in arrays.items()}
