"""Train a digit classifier with Flax and optax, clipped by a threshold that it learns.

A few batches are weighted up, so that their gradients are spikes. An epoch is one compiled call,
after which its events are sent. Needs flax and, for the digits, scikit-learn, and runs in a few
seconds on a CPU: ``python examples/clipping_jax.py``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import clipping
import telemetry

SPIKES = {120, 200, 280}
EPOCHS, BATCH = 8, 32


class Classifier(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """The logits of a batch."""
        return nn.Dense(10)(nn.relu(nn.Dense(64)(images)))


def train_step(
    state: TrainState, batch: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[TrainState, Any]:
    """One step, and the clip state after it."""
    images, labels, weight = batch

    def loss(params: Any) -> jax.Array:
        logits = state.apply_fn(params, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return weight * losses.mean()

    state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    return state, state.opt_state[0]


@jax.jit
def train_epoch(state: TrainState, batches: Any) -> tuple[TrainState, Any]:
    """All steps of an epoch, and the stack of their clip states."""
    return jax.lax.scan(train_step, state, batches)


def show(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    config: object,
) -> None:
    """Print every 50th step, and the spikes."""
    step = metadata["clipper_step"]
    if step % 50 == 0 or step in SPIKES:
        print(
            f"epoch {metadata['epoch']} step {step:3d}"
            f"  grad_norm {measurements['grad_norm']:9.3f}"
            f"  threshold {measurements['threshold']:7.3f}"
            f"  clipped to {measurements['clipped_grad_norm']:7.3f}  {metadata['outcome']}"
        )


def main() -> None:
    """Train, and say how well it went."""
    digits = load_digits()
    images, labels = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    model = Classifier()
    clipper = clipping.AutoClip(warmup_steps=50)
    state = TrainState.create(
        apply_fn=model.apply,
        params=model.init(jax.random.key(0), images[:1]),
        tx=optax.chain(clipping.jax.transformation(clipper), optax.sgd(0.5)),
    )
    steps, order = 1500 // BATCH, np.random.default_rng(0)
    with telemetry.attach("show", ("smartclip", "clip", "stop"), show):
        for epoch in range(EPOCHS):
            chosen = order.permutation(1500)[: steps * BATCH].reshape(steps, BATCH)
            numbers = range(epoch * steps + 1, (epoch + 1) * steps + 1)
            weights = jnp.array([1000.0 if number in SPIKES else 1.0 for number in numbers])
            state, stack = train_epoch(state, (images[chosen], labels[chosen], weights))
            with telemetry.context(epoch=epoch):
                clipping.jax.emit(stack)
    logits = model.apply(state.params, images[1500:])
    right = (logits.argmax(axis=1) == labels[1500:]).mean()
    learned = clipping.jax.state_dict(state, clipper)
    print(f"accuracy {right:.3f}, threshold at the end {learned['thresholds'][0]:.3f}")


if __name__ == "__main__":
    main()
