"""Train a small classifier with a bad batch now and then, with and without clipping.

``python examples/clipping_torch.py``
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import clipping
import telemetry

STEPS = 300
BAD = range(150, STEPS, 25)
"""The steps whose loss is a thousand times too large."""


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a plane; the label says whether both coordinates have one sign."""
    points = torch.randn(2048, 2)
    return points, (points.prod(dim=1) > 0).long()


def train(clipper: clipping.Clipper | None) -> float:
    """Train, and return the accuracy.

    Args:
        clipper: None to do without.
    """
    torch.manual_seed(0)
    points, labels = data()
    hidden = torch.nn.Linear(2, 64)
    model = torch.nn.Sequential(hidden, torch.nn.ReLU(), torch.nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    def run() -> None:
        for step in range(STEPS):
            batch = torch.randint(len(points), (128,))
            loss = cross_entropy(model(points[batch]), labels[batch])
            optimizer.zero_grad()
            (loss * 1000 if step in BAD else loss).backward()
            optimizer.step()

    if clipper is None:
        run()
    else:
        with clipping.clip_context(model, optimizer, clipper):
            run()
    return float((model(points).argmax(dim=1) == labels).float().mean())


def main() -> None:
    """Compare the clippers, and count what they clipped."""
    print(f"{'no clipping':24} accuracy {train(None):.3f}")
    clippers: dict[str, clipping.Clipper] = {
        "AutoClip": clipping.AutoClip(warmup_steps=50),
        "AutoClip, 90th percentile": clipping.AutoClip(
            mode="percentile", percentile=90.0, history="window", warmup_steps=50
        ),
        "ZScoreClip": clipping.ZScoreClip(warmup_steps=50),
        "AGC per unit": clipping.AGC(clipping=0.05, scope="per_unit", exclude_bias_bn=False),
    }
    for name, clipper in clippers.items():
        clipped = {"steps": 0}
        with telemetry.attach("count", ("smartclip", "clip", "stop"), count, config=clipped):
            accuracy = train(clipper)
        print(f"{name:24} accuracy {accuracy:.3f}, clipped in {clipped['steps']} of {STEPS} steps")


def count(event: object, measurements: object, metadata: object, clipped: object) -> None:
    """Count the steps in which something was clipped."""
    if isinstance(measurements, dict) and isinstance(clipped, dict):
        clipped["steps"] += measurements["groups_clipped"] > 0


if __name__ == "__main__":
    main()
