"""The events of a Keras step, sent at the end of its batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras.backend import backend  # type: ignore[import-untyped] # it ships no types

import telemetry
from clipping import emission
from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.on_metrics import Listener
from clipping.records import Decision, Measured, Ops
from telemetry.ambient import ambient_metadata


class Look(NamedTuple):
    """What a step left behind.

    Attributes:
        ops: Of the arrays that follow.
        measured: The norms.
        decision: What was decided with them.
        present: Which rows have a gradient; None if all.
        offending: Which rows were not finite in a step since the last look, a NumPy array.
        offending_norm: The norm of the model's gradient when it last was not finite.
        steps: How many the clipper has seen.
        step: How many the optimizer has made with it.
    """

    ops: Ops
    measured: Measured
    decision: Decision
    present: Any
    offending: Any
    offending_norm: Any
    steps: int
    step: int


def report(
    groups: Groups, clipper: Clipper, look: Look, listener: Listener | None, epoch: int
) -> None:
    """Send the events; metadata of a ``telemetry.context`` around the fit win.

    Args:
        groups: How the trainable variables are grouped.
        clipper: What decided.
        look: What the step left behind.
        listener: Whom to tell of each group, or None.
        epoch: Counted from 1.
    """
    around = {"step": look.step, "epoch": epoch, "clipper_step": look.steps}
    outer = ambient_metadata() or {}
    with telemetry.context(**{k: v for k, v in around.items() if k not in outer}):
        emission.emit_nonfinite(groups, clipper, look.offending, look.offending_norm)
        emission.emit_groups(look.ops, groups, clipper, look.decision, listener, look.present)
        if telemetry.enabled(emission.STOP):
            _emit_stop(groups, clipper, look)


def refusal(groups: Groups, look: Look) -> FloatingPointError:
    """The error of ``on_nonfinite="raise"``."""
    keys = groups.named(look.offending)
    return FloatingPointError(
        f"Gradients were not finite in {len(keys)} of {len(groups.names)} groups, {keys!r}: the "
        f"model's gradient norm was {float(look.offending_norm)!r}. The step was made with zeros "
        "in place of all gradients; the history is untouched. on_nonfinite='raise' allows finite "
        "gradients only; to go on without such steps: on_nonfinite='skip'."
    )


def _emit_stop(groups: Groups, clipper: Clipper, look: Look) -> None:
    about = {
        "algo": clipper.algo,
        "scope": clipper.scope,
        "backend": backend(),
        "dry_run": clipper.dry_run,
    }
    telemetry.execute(
        emission.STOP,
        emission.totals(look.ops, groups, look.measured, look.decision, look.present),
        about | emission.outcome(look.ops, look.decision, look.present),
    )
