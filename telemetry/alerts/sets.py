"""Rules that are ready to be attached."""

from __future__ import annotations

from typing import Final

from telemetry.alerts.rule import Rule

RL_RULES: Final = (
    Rule(
        "kl_divergence_high",
        "rl.step.kl_divergence",
        above=0.05,
        clear=0.04,
        severity="warning",
        message="The policy moves away from its reference faster than usual (normal is below "
        "0.05). Watch it; if it goes on, lower the learning rate.",
    ),
    Rule(
        "kl_divergence_critical",
        "rl.step.kl_divergence",
        above=0.1,
        clear=0.08,
        severity="critical",
        message="The policy has left its reference. Lower the learning rate, raise the KL "
        "penalty or make fewer epochs over each batch; go back to the last good checkpoint.",
    ),
    Rule(
        "clip_fraction_high",
        "rl.step.clip_fraction",
        above=0.5,
        clear=0.3,
        severity="warning",
        message="Most of the update is clipped away (0.1 to 0.3 is usual). Raise clip_epsilon or "
        "lower the learning rate.",
    ),
    Rule(
        "clip_fraction_low",
        "rl.step.clip_fraction",
        below=0.1,
        clear=0.15,
        severity="info",
        message="Hardly any ratio is clipped (0.1 to 0.3 is usual). Lower clip_epsilon, or raise "
        "the learning rate if it learns too slowly.",
    ),
    Rule(
        "explained_variance_low",
        "rl.step.explained_variance",
        below=0.5,
        clear=0.7,
        severity="warning",
        message="The value function does not predict the returns (above 0.7 is good). Expected "
        "at the start; later, train it more or with a higher learning rate.",
    ),
    Rule(
        "entropy_collapse",
        "rl.step.entropy",
        drop=0.5,
        clear=0.3,
        window=10,
        severity="critical",
        message="The policy has suddenly become almost deterministic. Raise the entropy bonus, "
        "and go back to a checkpoint before the drop.",
    ),
)
"""Limits for reinforcement learning on the events ``rl.step``.

KL divergence above 0.05 (warning) and 0.1 (critical), clip fraction above 0.5 and below 0.1,
explained variance below 0.5, and a sudden drop of the entropy.
"""

TRAINING_RULES: Final = (
    Rule(
        "loss_not_finite",
        "training.step.loss",
        nonfinite=True,
        severity="critical",
        message="Stop and go back to the last checkpoint. Lower the learning rate, clip the "
        "gradients, and look at the last batch.",
    ),
    Rule(
        "loss_spike",
        "training.step.loss",
        spike=3.0,
        clear=1.5,
        severity="warning",
        message="Look at this batch and at the learning rate. If the loss does not come back, go "
        "back to a checkpoint from before.",
    ),
    Rule(
        "eval_loss_not_finite",
        "training.eval.loss",
        nonfinite=True,
        severity="critical",
        message="Look at the evaluation's data and at the weights.",
    ),
    Rule(
        "grad_norm_explosion",
        "training.step.grad_norm",
        spike=10.0,
        clear=3.0,
        severity="error",
        message="Clip the gradients or lower the learning rate.",
    ),
    Rule(
        "clipped_grad_norm_explosion",
        "smartclip.clip.stop.grad_norm",
        spike=10.0,
        clear=3.0,
        severity="warning",
        message="The clipper bounds this step. If it goes on, lower the learning rate.",
    ),
    Rule(
        "clipping_on_most_steps",
        "smartclip.clip.stop.scale",
        below=1.0,
        share=0.5,
        window=100,
        clear=0.4,
        severity="warning",
        message="The clipper sets the step size instead of the learning rate. Lower the learning "
        "rate, or raise the clipper's threshold.",
    ),
    Rule(
        "throughput_drop",
        "training.timing.samples_per_second",
        drop=0.5,
        clear=0.3,
        for_steps=5,
        severity="warning",
        message="Compare data_duration with step_duration: if it has grown, the data loader is "
        "the bottleneck; if not, look for others on the device, its clock or its temperature.",
    ),
)
"""Limits for any training: on its steps, its evaluations, its speed and its clipping."""
