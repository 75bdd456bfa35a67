"""What is done about gradients that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence

from clipping.records import Array, Key, Ops, Policy


def zeroed(ops: Ops, policy: Policy, nonfinite: Array) -> Array:
    """Which groups a policy turns into zeros.

    Args:
        ops: The array operations.
        policy: ``"skip"``: all groups if any is not finite. ``"zero"``: those that are not.
            ``"propagate"`` and ``"raise"``: none.
        nonfinite: Booleans of shape [groups].
    """
    if policy == "skip":
        return nonfinite | ops.any(nonfinite)
    return nonfinite if policy == "zero" else nonfinite & ~nonfinite


def refusal(keys: Sequence[Key], groups: int, grad_norm: float) -> FloatingPointError:
    """The error of policy ``"raise"``."""
    return FloatingPointError(
        f"Gradients are not finite in {len(keys)} of {groups} groups, {list(keys)!r}: the model's "
        f"gradient norm is {grad_norm!r}. on_nonfinite='raise' allows finite gradients only; "
        "gradients and history are untouched. To go on without such steps: on_nonfinite='skip'."
    )
