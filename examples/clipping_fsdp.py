"""Train a digit classifier on several processes with FSDP2, clipped by a threshold they share.

A few batches are weighted up, so that their gradients are spikes. Needs scikit-learn for the
digits, and runs in a few seconds on a CPU:
``torchrun --nproc-per-node 2 examples/clipping_fsdp.py``
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import clipping
import telemetry

BATCH = 64
STEPS = 300
SPIKES = {120, 200, 280}


def show(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    config: object,
) -> None:
    """Print every 50th step, and the spikes."""
    if metadata["step"] % 50 == 0 or metadata["step"] in SPIKES:
        print(
            f"step {metadata['step']:3d}"
            f"  grad_norm {measurements['grad_norm']:9.3f}"
            f"  threshold {measurements['threshold']:7.3f}"
            f"  clipped to {measurements['clipped_grad_norm']:7.3f}  {metadata['outcome']}"
        )


def train(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Train, and say on rank 0 how well it went and that the ranks agree."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # every rank makes the same model before it is cut up
    layers = [torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)]
    model = torch.nn.Sequential(*layers)
    mesh = init_device_mesh("cpu", (ranks,))
    for layer in (layers[0], layers[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    clipper = clipping.AutoClip(warmup_steps=50)
    order = torch.Generator().manual_seed(1)
    with clipping.clip_context(model, optimizer, clipper):
        for step in range(STEPS):
            batch = torch.randint(1500, (BATCH,), generator=order)[rank::ranks]
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            (1000 * loss if step in SPIKES else loss).backward()
            with telemetry.context(step=step):
                optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        right = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    thresholds: list[float] = [0.0] * ranks
    dist.all_gather_object(thresholds, clipper.threshold_any())
    if rank == 0:
        print(f"accuracy {right:.3f}, threshold at the end {thresholds[0]:.3f}")
        print(f"all {ranks} ranks have the same threshold: {len(set(thresholds)) == 1}")


def main() -> None:
    """Set the processes up, and attach the handler on one of them."""
    if "RANK" not in os.environ:
        raise SystemExit("Start it with: torchrun --nproc-per-node 2 examples/clipping_fsdp.py")
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    dist.init_process_group("gloo")
    if dist.get_rank() == 0:
        telemetry.attach("show", ("smartclip", "clip", "stop"), show)
    train(images, labels)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
