"""Train a digit classifier in a custom TensorFlow loop, clipped by a threshold that it learns.

A few batches are weighted up, so that their gradients are spikes. Needs scikit-learn for the
digits, and runs in a few seconds on a CPU: ``python examples/clipping_tensorflow.py``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types
from sklearn.datasets import load_digits

import clipping
import clipping.tensorflow as sc_tf
import telemetry

STEPS = 400
SPIKES = {120, 200, 280}


def show(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    config: object,
) -> None:
    """Print what was emitted."""
    print(
        f"step {metadata['step']:3d}  grad_norm {measurements['grad_norm']:9.3f}"
        f"  threshold {measurements['threshold']:7.3f}"
        f"  clipped to {measurements['clipped_grad_norm']:7.3f}  {metadata['outcome']}"
    )


def main() -> None:
    """Train, and say how well it went."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = tf.constant(digits.data / 16, tf.float32)
    labels = tf.constant(digits.target)
    data = tf.data.Dataset.from_tensor_slices((images[:1500], labels[:1500]))
    data = data.shuffle(1500, seed=0).repeat().batch(32).take(STEPS)

    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((64,)), dense(64, activation="relu"), dense(10)])
    optimizer = keras.optimizers.SGD(0.5)  # which a spike would throw off
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    clipper = clipping.AutoClip(warmup_steps=50)

    @tf.function
    def train_step(batch: tf.Tensor, target: tf.Tensor, weight: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = weight * loss_of(target, model(batch, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        grads = sc_tf.apply_grads(grads, model, clipper)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    with telemetry.attach("show", ("smartclip", "clip", "stop"), show):
        for step, (batch, target) in enumerate(data):
            train_step(batch, target, tf.constant(1000.0 if step in SPIKES else 1.0))
            if step % 50 == 0 or step in SPIKES:
                with telemetry.context(step=step):
                    sc_tf.emit(clipper)

    right = tf.argmax(model(images[1500:]), 1) == tf.cast(labels[1500:], tf.int64)
    accuracy = float(tf.reduce_mean(tf.cast(right, tf.float32)))
    print(f"accuracy {accuracy:.3f}, threshold at the end {clipper.threshold_any():.3f}")


if __name__ == "__main__":
    main()
