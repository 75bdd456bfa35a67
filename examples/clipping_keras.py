"""Train a digit classifier with Keras, clipped by a threshold that it learns.

A few batches are weighted up, so that their gradients are spikes. Needs scikit-learn for the
digits, and runs in a few seconds on a CPU, on any backend of Keras:
``KERAS_BACKEND=jax python examples/clipping_keras.py``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

import clipping
import telemetry
from clipping.integrations.keras import ClipCallback

BATCH = 32
SPIKES = {120, 200, 280}


def classifier() -> Any:
    """Two dense layers, trained by plain SGD, which a spike would throw off."""
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = ["accuracy"]
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=metrics, weighted_metrics=[])
    return model


def batches(images: Any, labels: Any, epochs: int) -> Any:
    """Images, labels and weights of each step; some are spoilt."""
    rng, step = np.random.default_rng(0), 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            weight = 1000.0 if step in SPIKES else 1.0
            yield images[chosen], labels[chosen], np.full(BATCH, weight, np.float32)
            step += 1


def show(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    config: object,
) -> None:
    """Print every 50th step, and the spikes."""
    if metadata["step"] % 50 == 0 or metadata["step"] in SPIKES:
        print(
            f"epoch {metadata['epoch']} step {metadata['step']:3d}"
            f"  grad_norm {measurements['grad_norm']:9.3f}"
            f"  threshold {measurements['threshold']:7.3f}"
            f"  clipped to {measurements['clipped_grad_norm']:7.3f}  {metadata['outcome']}"
        )


def main() -> None:
    """Train, and say how well it went."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    model, clipper = classifier(), clipping.AutoClip(warmup_steps=50)
    epochs = 8
    with telemetry.attach("show", ("smartclip", "clip", "stop"), show):
        model.fit(
            batches(images[:1500], labels[:1500], epochs),
            epochs=epochs,
            steps_per_epoch=1500 // BATCH,
            verbose=0,
            callbacks=[ClipCallback(clipper)],
        )
    _, accuracy = model.evaluate(images[1500:], labels[1500:], verbose=0)
    print(f"accuracy on unseen digits {accuracy:.3f}, last threshold {clipper.threshold_any():.3f}")


if __name__ == "__main__":
    main()
