"""A regularizer that is 1 % of the loss and stops the training, found in the records.

A small network learns to tell handwritten digits apart. Three regularizers are added; one of them
keeps the weights near where they started: ``1.0 * ||w - w_start||``. The slope of a distance is 1,
however small the distance is, so this term pulls harder than the base loss pushes, nothing moves,
and its value stays tiny for that very reason. The values of the terms do not show it. Their
gradient norms do, and they say which weight would do.

Run: ``python examples/regularizers_dominating.py [picture.png]``. It takes up to a minute, and
writes two files under ``runs/regularizers_dominating``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import nll_loss

import handlers
import telemetry
from regularizers import CustomLoss, RegularizerSpec, penalties

STEPS = 600
TRAINED_ON = 1297
HELD_OUT = 500
WEIGHT = 1.0
WANTED = 0.1
"""How large the gradient of a regularizer may be, as a share of the base loss's."""

RUNS = Path("runs/regularizers_dominating")
"""Where the records go, from the current folder."""

NAMES = ("base loss", "near_start", "confidence", "decay")

Parameters = list[torch.nn.Parameter]
Penalty = Callable[[Any, Any], torch.Tensor]


def distance_from(start: list[torch.Tensor], parameters: Parameters) -> Penalty:
    """How far the parameters have moved: the L2 norm of the difference, not squared."""

    def distance(data: Any, logprobs: Any) -> torch.Tensor:
        moved = [(now - then).flatten() for now, then in zip(parameters, start, strict=True)]
        return torch.linalg.vector_norm(torch.cat(moved))

    return distance


def composed_loss(parameters: Parameters, weight: float) -> CustomLoss:
    """Cross entropy and three regularizers."""
    start = [parameter.detach().clone() for parameter in parameters]
    confidence = partial(penalties.entropy, mode="bonus", reduction="mean")
    return CustomLoss(
        lambda labels, logprobs: nll_loss(logprobs, labels),
        [
            RegularizerSpec(distance_from(start, parameters), weight, "near_start"),
            RegularizerSpec(confidence, 0.02, "confidence"),
            RegularizerSpec(lambda *_: penalties.l2(None, parameters), 1e-4, "decay"),
        ],
        track_grad_norms=True,
    )


def train(path: Path, weight: float) -> float:
    """Train, write what the loss reports to a file, and return the accuracy on held-out digits.

    Args:
        path: The JSONL file.
        weight: Of the distance from the start.
    """
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(TRAINED_ON + HELD_OUT)
    inputs = torch.tensor(pixels / 16, dtype=torch.float32)[order]
    labels = torch.tensor(digits)[order]
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    loss = composed_loss(parameters, weight)

    path.unlink(missing_ok=True)  # the handler would append to it
    with handlers.attach("jsonl", path=path):
        for step in range(STEPS):
            batch = torch.randint(TRAINED_ON, (128,))
            with telemetry.context(step=step):
                logprobs = model(inputs[batch]).log_softmax(dim=1)
                output = loss(labels[batch], logprobs, wrt=parameters)
                base = output.base_loss
                telemetry.execute(
                    ("training", "step"), {"base_loss": base.value, "grad_norm": base.grad_norm}
                )
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()

    with torch.no_grad():
        right = model(inputs[TRAINED_ON:]).argmax(dim=1) == labels[TRAINED_ON:]
    return float(right.float().mean())


Terms = dict[str, tuple[float, float]]
"""What a term adds to the loss and the norm of what it adds to the gradient, by its name."""


def read(path: Path) -> list[Terms]:
    """The terms of each step, from the file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = groupby(records, key=lambda record: record["metadata"]["step"])
    return [dict(_terms(of_step)) for _, of_step in steps]


def _terms(records: Iterable[dict[str, Any]]) -> Iterable[tuple[str, tuple[float, float]]]:
    for record in records:
        measured, about = record["measurements"], record["metadata"]
        if record["event"] == "training.step":
            yield "base loss", (measured["base_loss"], measured["grad_norm"])
        if record["event"] == "regularizer.compute.stop":
            grad_norm = about["weight"] * measured["grad_norm"]
            yield about["regularizer_name"], (measured["contribution"], grad_norm)


def report(title: str, steps: list[Terms], accuracy: float) -> None:
    """Print the median of each term, and its share of all."""
    medians = {
        name: [median(terms[name][column] for terms in steps) for column in (0, 1)]
        for name in NAMES
    }
    loss, gradient = (sum(abs(row[column]) for row in medians.values()) for column in (0, 1))
    print(f"{title}: accuracy {accuracy:.0%}")
    print(f"{'':12}{'in the loss':>12}{'share':>7}{'gradient norm':>16}{'share':>7}")
    for name, (part, norm) in medians.items():
        shares = abs(part) / loss, norm / gradient
        print(f"{name:12}{part:12.3f}{shares[0]:7.0%}{norm:16.3f}{shares[1]:7.0%}")
    print()


def draw(steps: list[Terms], path: str) -> None:
    """The same by step, as a picture."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- only who wants a picture needs it

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    titles = ("what each term adds to the loss", "gradient norm of what it adds")
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 2), titles, strict=True)):
        for name in NAMES:
            axes.plot([abs(terms[name][column]) for terms in steps], label=name, linewidth=1)
        axes.set(title=title, xlabel="step", yscale="log", ylim=(1e-4, 10))
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, look, take the weight that the records suggest, and train again."""
    accuracy = train(RUNS / "first.jsonl", WEIGHT)
    first = read(RUNS / "first.jsonl")
    report(f"weight {WEIGHT}", first, accuracy)

    base, pull = (median(terms[name][1] for terms in first) for name in ("base loss", "near_start"))
    weight = round(WEIGHT * WANTED * base / pull, 3)
    print(f"near_start pulls {pull / base:.1f} times as hard as the base loss pushes.")
    print(f"To pull {WANTED} times as hard it would have the weight {weight}.\n")

    accuracy = train(RUNS / "second.jsonl", weight)
    report(f"weight {weight}", read(RUNS / "second.jsonl"), accuracy)
    if len(sys.argv) > 1:
        draw(first, sys.argv[1])


if __name__ == "__main__":
    main()
