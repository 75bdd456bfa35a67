"""The events of a clipping, as the catalogue has them.

On an accelerator measurements are scalars of the device. What would have to be read to be known
is left out (the ``outcome``) or comes later (the non-finite event).
"""

from __future__ import annotations

from contextvars import copy_context
from typing import Any, Final, Protocol

import telemetry
from clipping import deferred
from clipping.groups import Groups
from clipping.on_metrics import Listener
from clipping.records import Array, Decision, Measured, Ops

CLIP: Final = ("smartclip", "clip")
STOP: Final = (*CLIP, "stop")
GROUP: Final = (*CLIP, "group")
NONFINITE: Final = (*CLIP, "nonfinite")


class Named(Protocol):
    """What events say of a clipper; it need not be at hand any more."""

    @property
    def algo(self) -> str:
        """Its algorithm."""
        ...

    @property
    def scope(self) -> str:
        """What forms a group."""
        ...

    @property
    def policy(self) -> str:
        """What is done about gradients that are not finite."""
        ...


class Configured(Named, Protocol):
    """What the start and stop events say of a clipper."""

    @property
    def dry_run(self) -> bool:
        """Whether gradients are left as they are."""
        ...


def about(clipper: Configured, backend: str) -> dict[str, Any]:
    """The metadata that the start and stop events share.

    Args:
        clipper: What decides.
        backend: The name of the framework that the gradients are in.
    """
    return {
        "algo": clipper.algo,
        "scope": clipper.scope,
        "backend": backend,
        "dry_run": clipper.dry_run,
    }


def model_norm(ops: Ops, norms: Array) -> Array:
    """The norm of the whole model's gradient, from those of its rows."""
    return norms[0] if norms.shape[0] == 1 else ops.norm(norms)


def totals(
    ops: Ops, groups: Groups, measured: Measured, decision: Decision, present: Any = None
) -> dict[str, Any]:
    """The measurements of the stop event.

    Args:
        ops: The array operations.
        groups: What the rows belong to.
        measured: The norms.
        decision: What was decided with them.
        present: Which rows have a gradient; None if all.
    """
    kept = ops.where(decision.zeroed, 0.0, decision.norms)
    scale = decision.scale
    for counted in (measured.present, measured.grouped):
        if counted is not None:
            scale = ops.where(counted, scale, 1.0)
    numbers = {
        "grad_norm": ops.export(model_norm(ops, decision.norms)),
        "clipped_grad_norm": ops.export(model_norm(ops, kept * decision.scale)),
        "scale": ops.export(ops.min(scale)),
        "groups": len(reported(groups, present)),
        "groups_clipped": ops.export(_groups_clipped(ops, groups, scale < 1)),
    }
    if groups.count == 1 and not groups.unitwise:
        numbers |= {name: ops.export(limit[0]) for name, limit in decision.limits.items()}
    return numbers


def reported(groups: Groups, present: Any) -> range | list[int]:
    """The groups that have a gradient."""
    if present is None:
        return range(groups.count)
    return [index for index, (first, _) in enumerate(groups.bounds) if present[first]]


def outcome(ops: Ops, decision: Decision, present: Any = None) -> dict[str, str]:
    """The metadata of the stop event; nothing where it would have to be read from a device."""
    if not ops.on_host:
        return {}
    there = slice(None) if present is None else present
    if decision.zeroed[there].all():
        return {"outcome": "skipped"}
    return {"outcome": "applied" if (decision.scale[there] < 1).any() else "unclipped"}


def emit_nonfinite(groups: Groups, clipper: Named, flags: Any, grad_norm: Any) -> None:
    """Say which groups have a NaN or an infinity, if any has.

    Args:
        groups: What the rows belong to.
        clipper: Whose policy it is.
        flags: Which rows are not finite, a NumPy array.
        grad_norm: The model's.
    """
    if flags.any():
        keys = tuple(groups.named(flags))
        metadata = {"algo": clipper.algo, "keys": keys, "policy": clipper.policy}
        telemetry.execute(NONFINITE, {"grad_norm": grad_norm, "count": len(keys)}, metadata)


def report_nonfinite(ops: Ops, groups: Groups, clipper: Named, decision: Decision) -> None:
    """Send the non-finite event now, or as soon as the device has said whether it is due."""
    if ops.on_host:
        if decision.nonfinite.any():
            norm = ops.export(model_norm(ops, decision.norms))
            emit_nonfinite(groups, clipper, decision.nonfinite, norm)
        return
    if not telemetry.enabled(NONFINITE):
        return
    flags = ops.later(decision.nonfinite)
    if flags is not None:
        norm, here = model_norm(ops, decision.norms), copy_context()
        deferred.when_known(
            flags, lambda known: here.run(emit_nonfinite, groups, clipper, known, norm)
        )


def emit_groups(
    ops: Ops,
    groups: Groups,
    clipper: Named,
    decision: Decision,
    listener: Listener | None,
    present: Any = None,
) -> None:
    """Report each group that has a gradient, if anybody listens."""
    on_bus = telemetry.enabled(GROUP)
    if not on_bus and listener is None:
        return
    columns = {name: groups.split(x) for name, x in _columns(ops, groups, decision).items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    keys = groups.keys
    if present is not None:
        some = reported(groups, present)
        rows, keys = [rows[i] for i in some], tuple(keys[i] for i in some)
    whose: dict[str, Any] = {"algo": clipper.algo, "scope": clipper.scope}
    if on_bus:
        for key, row in zip(keys, rows, strict=True):
            telemetry.execute(GROUP, row, {**whose, "key": key})
    if listener is not None:
        for key, row in zip(keys, telemetry.values.to_python_many(rows), strict=True):
            listener.tell(GROUP, row, {**whose, "key": key})


def _groups_clipped(ops: Ops, groups: Groups, below: Array) -> Array:
    if not groups.unitwise:
        return ops.sum(below)[0]
    # A row of a group counts as 1: the norm of ones is above 0 where there is one.
    ones = ops.real(below)
    return ops.sum(ops.segment_norms(ones, groups.owner, len(groups.names)) > 0)[0]


def _columns(ops: Ops, groups: Groups, decision: Decision) -> dict[str, Any]:
    """The measurements of the group events, each of all rows."""
    arrays = {
        "grad_norm": decision.norms,
        **decision.limits,
        "scale": decision.scale,
        "clipped": decision.scale < 1,
    }
    if groups.unitwise:
        return arrays
    return {name: ops.export(array) for name, array in arrays.items()}
