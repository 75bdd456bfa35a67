"""The event of a step of reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.emit.send import Number, send
from telemetry.registry import Registry, default_registry
from telemetry.spans import NOTHING


def emit_rl_step(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    policy_loss: Number | None = None,
    value_loss: Number | None = None,
    entropy: Number | None = None,
    kl_divergence: Number | None = None,
    clip_fraction: Number | None = None,
    advantage_mean: Number | None = None,
    advantage_std: Number | None = None,
    explained_variance: Number | None = None,
    reward_mean: Number | None = None,
    step: int | None = None,
    epoch: int | None = None,
    run_id: str | None = None,
    user_id: str | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``rl.step``: a step of reinforcement learning was made.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        policy_loss: Surrogate loss of the policy.
        value_loss: Mean squared error of the value function.
        entropy: Of the policy, in nats.
        kl_divergence: From the reference policy, in nats.
        clip_fraction: Share of the clipped ratios, 0 to 1.
        advantage_mean: Mean advantage.
        advantage_std: Its standard deviation.
        explained_variance: Of the value function, at most 1.
        reward_mean: Mean reward.
        step: Counted from 1; by default that of the `context` around.
        epoch: Counted from 1; likewise.
        run_id: Which run; likewise.
        user_id: Whose run; likewise.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_rl_step(step=100, kl_divergence=0.01, entropy=3.2, reward_mean=5.2)
    """
    known = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "kl_divergence": kl_divergence,
        "clip_fraction": clip_fraction,
        "advantage_mean": advantage_mean,
        "advantage_std": advantage_std,
        "explained_variance": explained_variance,
        "reward_mean": reward_mean,
    }
    where = {"step": step, "epoch": epoch, "run_id": run_id, "user_id": user_id}
    send(("rl", "step"), measurements, known, more, metadata, where, registry)
