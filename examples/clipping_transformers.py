"""Train a tiny language model with the Trainer of transformers, clipped by a learned threshold.

It learns to go on with arithmetic sequences modulo 32, and a few batches are weighted up, so that
their gradients are spikes. Nothing is downloaded, and it runs in a few seconds on a CPU:
``python examples/clipping_transformers.py``
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import clipping
import telemetry
from clipping.integrations.transformers import ClipCallback

SPIKES = {60, 80, 100}
TOKENS, LENGTH = 32, 16


class Spoilt(Trainer):
    """A trainer whose loss is a thousand times too large in some steps."""

    def compute_loss(self, model: torch.nn.Module, inputs: Any, **options: Any) -> Any:
        """The loss of one batch."""
        loss = super().compute_loss(model, inputs, **options)
        return 1000 * loss if self.state.global_step + 1 in SPIKES else loss


def show(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    config: object,
) -> None:
    """Print every 20th step; the spikes are among them."""
    if metadata["step"] % 20 == 0:
        print(
            f"epoch {metadata['epoch']} step {metadata['step']:3d}"
            f"  grad_norm {measurements['grad_norm']:9.3f}"
            f"  threshold {measurements['threshold']:7.3f}"
            f"  clipped to {measurements['clipped_grad_norm']:7.3f}  {metadata['outcome']}"
        )


def sequences(count: int) -> list[dict[str, torch.Tensor]]:
    """Arithmetic sequences, each its own label."""
    starts = torch.randint(TOKENS, (count, 1))
    strides = torch.randint(1, 5, (count, 1))
    tokens = (starts + strides * torch.arange(LENGTH)) % TOKENS
    return [{"input_ids": row, "labels": row} for row in tokens]


def main() -> None:
    """Train, and say how well it went."""
    torch.set_num_threads(1)  # more only get in each other's way in a model this small
    set_seed(0)
    config = GPT2Config(
        vocab_size=TOKENS,
        n_positions=LENGTH,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    clipper = clipping.AutoClip(warmup_steps=20, min_history=20)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Spoilt(
            GPT2LMHeadModel(config),
            TrainingArguments(
                folder,
                max_grad_norm=0.0,  # the Trainer's own clipping, which would come first
                max_steps=200,
                learning_rate=3e-3,
                per_device_train_batch_size=32,
                use_cpu=True,
                disable_tqdm=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
            ),
            train_dataset=sequences(2048),
            eval_dataset=sequences(256),
            callbacks=[ClipCallback(clipper)],
        )
        before = trainer.evaluate()["eval_loss"]
        with telemetry.attach("show", ("smartclip", "clip", "stop"), show):
            trainer.train()
        after = trainer.evaluate()["eval_loss"]
    print(f"loss {before:.3f} -> {after:.3f}, threshold at the end {clipper.threshold_any():.3f}")


if __name__ == "__main__":
    main()
