"""Train a digit classifier with Lightning, clipped by a threshold that it learns.

A few batches are weighted up, so that their gradients are spikes. Needs scikit-learn for the
digits, and runs in a few seconds on a CPU: ``python examples/clipping_lightning.py``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits

import clipping
import telemetry
from clipping.integrations.lightning import ClipCallback

SPIKES = {120, 200, 280}


class Classifier(pl.LightningModule):
    """Two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )

    def training_step(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int
    ) -> torch.Tensor:
        """The loss of one batch; some are spoilt."""
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layers(images), labels)
        return 1000 * loss if self.global_step in SPIKES else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD, which a spike would throw off."""
        return torch.optim.SGD(self.parameters(), lr=0.5)


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
    torch.set_num_threads(1)  # more only get in each other's way in a model this small
    pl.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    data = torch.utils.data.TensorDataset(images[:1500], labels[:1500])
    clipper = clipping.AutoClip(warmup_steps=50)
    trainer = pl.Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ClipCallback(clipper)],
    )
    model = Classifier()
    with telemetry.attach("show", ("smartclip", "clip", "stop"), show):
        trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=32, shuffle=True))
    with torch.no_grad():
        right = (model.layers(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"accuracy {right:.3f}, threshold at the end {clipper.threshold_any():.3f}")


if __name__ == "__main__":
    main()
