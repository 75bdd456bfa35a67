"""A whole supervised training that reports itself: run, stages, steps, evaluations, checkpoints.

``python examples/training_supervised.py`` trains for three epochs; with ``--stop-after 1`` it
breaks off, and ``--resume`` goes on from the last checkpoint as a new attempt of the same run: with
the epochs that it would have made without the break. Everything lands in
``runs/supervised/metrics.jsonl``; alerts are on the console.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import clipping
import handlers
import telemetry
from regularizers import RegularizerSpec, custom_loss, penalties
from telemetry import alerts
from telemetry.runs import Attempt

EPOCHS = 3
BATCH_SIZE = 64
PEAK_LR = 0.2
CONSOLE_EVERY = 25


def load_data() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Points on a plane; the label says in which ring around the origin a point lies."""
    begun = time.monotonic_ns()
    points = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))  # each time the same
    labels = points.norm(dim=1).mul(1.5).long().clamp(max=3)
    telemetry.emit_dataset_load(
        name="rings", size=len(points), duration=time.monotonic_ns() - begun
    )
    train = TensorDataset(points[:3584], labels[:3584])
    val = TensorDataset(points[3584:], labels[3584:])
    return DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(val, 512)


class Training:
    """The model and what a checkpoint has of it."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.model = torch.nn.Sequential(
            torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=PEAK_LR, momentum=0.9)
        self.clipper = clipping.AutoClip(percentile=90.0, mode="percentile", warmup_steps=50)
        self.epochs_done = 0

    def train_epoch(self, loader: DataLoader[Any], epoch: int) -> None:
        """One pass over the data; `track` says the step of everything inside."""
        regularizers = [RegularizerSpec(fn=penalties.l2, weight=1e-4, name="small_logits")]
        losses = []
        for points, labels in telemetry.track(loader, epoch=epoch, total_epochs=EPOCHS):
            output = custom_loss(
                labels,
                self.model(points),
                lambda labels, logits: cross_entropy(logits, labels),
                regularizers=regularizers,
                model_id="rings-mlp",
            )
            self.optimizer.zero_grad()
            output.loss.backward()
            self.optimizer.step()  # clips first
            losses.append(output.loss.detach())
            telemetry.emit_step(loss=losses[-1], lr=self.optimizer.param_groups[0]["lr"])
        mean = torch.stack(losses).mean()
        telemetry.emit_epoch(epoch_loss=mean, epoch=epoch, total_epochs=EPOCHS)

    def evaluate(self, loader: DataLoader[Any]) -> None:
        """Loss and accuracy on data that the model has not seen."""
        with torch.no_grad():
            points, labels = next(iter(loader))
            logits = self.model(points)
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
        loss = cross_entropy(logits, labels)
        telemetry.emit_eval(split="val", loss=loss, accuracy=accuracy)

    def save(self) -> None:
        """Keep what a later attempt needs, the clipper's memory and the shuffling included."""
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "clipper": self.clipper.state_dict(),
                "epochs_done": self.epochs_done,
                "random": torch.get_rng_state(),
            },
            self.checkpoint,
        )
        telemetry.emit_checkpoint(
            checkpoint_name=f"epoch_{self.epochs_done}",
            path=str(self.checkpoint),
            size_bytes=self.checkpoint.stat().st_size,
        )

    def restore(self) -> None:
        """Load the last checkpoint."""
        saved = torch.load(self.checkpoint)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.clipper.load_state_dict(saved["clipper"])
        self.epochs_done = saved["epochs_done"]
        torch.set_rng_state(saved["random"])


def train(training: Training, which: Attempt, *, stop_after: int) -> None:
    """Train from where the training is up to an epoch."""
    with telemetry.workflow_run("rings", **which):
        with telemetry.stage_run("load_dataset"):
            loader, val = load_data()
        clip = clipping.clip_context(training.model, training.optimizer, training.clipper)
        with telemetry.stage_run("train"), clip:
            for epoch in range(training.epochs_done + 1, stop_after + 1):
                training.train_epoch(loader, epoch)
                training.epochs_done = epoch
                with telemetry.context(epoch=epoch, step=epoch * len(loader)):
                    training.evaluate(val)
                    training.save()


def is_worth_a_line(event: telemetry.EventName, _: object, metadata: Any) -> bool:
    """Not every step for the console."""
    return event != ("training", "step") or metadata["step"] % CONSOLE_EVERY == 0


def main() -> None:
    """Attach the handlers and the alerts, then train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/supervised"))
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--stop-after", type=int, default=EPOCHS, choices=range(1, EPOCHS + 1))
    options = parser.parse_args()
    torch.manual_seed(0)
    training = Training(options.out / "last.pt")
    if options.resume:
        if not training.checkpoint.exists():
            parser.error(f"--resume: there is no {training.checkpoint}; train without it first")
        training.restore()
    if training.epochs_done >= options.stop_after:
        print(f"Nothing to do: {training.epochs_done} epochs are done.")
        return
    which = telemetry.next_attempt(options.out / "run.json", resume=options.resume)
    with (
        handlers.attach("console", where=is_worth_a_line),
        handlers.attach("jsonl", path=options.out / "metrics.jsonl"),
        alerts.attach(alerts.TRAINING_RULES),
    ):
        train(training, which, stop_after=options.stop_after)


if __name__ == "__main__":
    main()
