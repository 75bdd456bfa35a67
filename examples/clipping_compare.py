"""Three clippers on one run: two watch, one acts.

A small network learns to tell handwritten digits apart, and every fiftieth batch has a loss that is
500 times too large. Two clippers in ``dry_run`` see the same gradients as the one that acts, and
say what they would have done. Run: ``python examples/clipping_compare.py``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits

import clipping
import telemetry

STEPS = 400
SPIKE_EVERY = 50
GATES: dict[str, Any] = {"warmup_steps": 40, "min_history": 40}
WATCHING = {
    "z-score 3": clipping.ZScoreClip(zmax=3.0, dry_run=True, **GATES),
    "99th percentile": clipping.AutoClip(
        mode="percentile", percentile=99.0, history="window", dry_run=True, **GATES
    ),
}
ACTING = {"median + 3 std": clipping.AutoClip(**GATES)}


def train() -> None:
    """Clip with all of them in every step; the context says which one an event is of."""
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for step in range(STEPS):
        batch = torch.randint(len(inputs), (64,))
        loss = torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        (loss * (500 if spiked(step) else 1)).backward()
        for name, clipper in (WATCHING | ACTING).items():
            with telemetry.context(step=step, clipper=name):
                clipping.apply(model, clipper)
        optimizer.step()
    with torch.no_grad():
        right = (model(inputs).argmax(1) == targets).float().mean().item()
    print(f"accuracy {right:.1%}\n")


def spiked(step: int) -> bool:
    """Whether a batch's loss is too large."""
    return (step + 1) % SPIKE_EVERY == 0


def main() -> None:
    """Train, and print what each clipper did or would have done."""
    seen: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}

    def note(_event: Any, measured: Mapping[str, Any], about: Mapping[str, Any], _: Any) -> None:
        seen.setdefault(about["clipper"], []).append((about["step"], measured))

    with telemetry.attach("compare", ("smartclip", "clip", "stop"), note):
        train()
    print(f"{'clipper':17}{'spikes cut':>11}{'others cut':>11}{'last threshold':>16}")
    for name, steps in seen.items():
        cut = [step for step, measured in steps if measured["scale"] < 1]
        spikes = sum(map(spiked, cut))
        threshold = steps[-1][1]["threshold"]
        print(f"{name:17}{spikes:>11}{len(cut) - spikes:>11}{threshold:>16.2f}")


if __name__ == "__main__":
    main()
