"""The picture of a run, drawn from the file that the JSONL handler wrote."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from telemetry.extras import import_extra

BASE, TOTAL, THRESHOLD, NORM, GOOD = "#4477AA", "#222222", "#EE6677", "#4477AA", "#228833"
TERMS = ("#CCBB44", "#AA3377", "#66CCEE")


class Series(NamedTuple):
    """Points of one curve."""

    steps: list[int]
    values: list[float]

    def add(self, step: int, value: Any) -> None:
        """Append a point; ``float`` reads back "NaN" and "Infinity"."""
        self.steps.append(step)
        self.values.append(float(value))


def read_series(path: Path) -> dict[str, Series]:
    """The curves of the picture by name, such as ``loss_total`` and ``contribution:shrinkage``."""
    wanted = {
        "custom_loss.stop": ("loss_total", "regularizer_total"),
        "regularizer.compute.stop": ("contribution",),
        "smartclip.clip.stop": ("grad_norm", "threshold"),
        "training.eval": ("accuracy",),
    }
    series: dict[str, Series] = defaultdict(lambda: Series([], []))
    for line in path.read_bytes().splitlines():
        record = orjson.loads(line) if line else {}
        metadata = record.get("metadata", {})
        for name in wanted.get(record.get("event", ""), ()):
            term = metadata.get("regularizer_name")
            key = f"{name}:{term}" if term else name
            if name in record["measurements"]:
                series[key].add(metadata["step"], record["measurements"][name])
    return dict(series)


def draw(path: Path, picture: Path, title: str) -> None:
    """Draw loss terms, gradient norm with its threshold, and accuracy into a PNG file."""
    figures: Any = import_extra("matplotlib.figure", extra="demo", feature="telemetry demo")
    series = read_series(path)
    figure = figures.Figure(figsize=(8, 9), layout="constrained")
    losses, norms, accuracy = figure.subplots(3, 1, sharex=True)
    _draw_losses(losses, series)
    _draw_norms(norms, series)
    _draw_accuracy(accuracy, series)
    for axes in (losses, norms, accuracy):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.set_xlabel("optimizer step")
    figure.suptitle(title)
    figure.savefig(picture, dpi=120)


def _draw_losses(axes: Any, series: dict[str, Series]) -> None:
    steps, totals = series["loss_total"]
    base = [a - b for a, b in zip(totals, series["regularizer_total"].values, strict=True)]
    axes.plot(steps, totals, color=TOTAL, linewidth=1.2, label="total loss")
    axes.plot(steps, base, color=BASE, linewidth=1.2, label="base loss")
    terms = sorted(name for name in series if name.startswith("contribution:"))
    for name, color in zip(terms, TERMS, strict=False):
        axes.plot(*series[name], color=color, linewidth=1.5, label=name.partition(":")[2])
    axes.set(title="Loss and what the regularizers contribute", ylabel="loss")
    axes.legend(frameon=False)


def _draw_norms(axes: Any, series: dict[str, Series]) -> None:
    axes.plot(*series["grad_norm"], color=NORM, linewidth=0.9, label="gradient norm")
    axes.plot(*series["threshold"], color=THRESHOLD, linewidth=1.8, label="clipping threshold")
    axes.set(title="Gradient norm before clipping", ylabel="L2 norm", yscale="log")
    axes.legend(frameon=False)


def _draw_accuracy(axes: Any, series: dict[str, Series]) -> None:
    axes.plot(*series["accuracy"], color=GOOD, marker="o", markersize=4)
    last = series["accuracy"].values[-1]
    axes.annotate(
        f"{last:.1%}",
        (series["accuracy"].steps[-1], last),
        xytext=(0, -16),
        textcoords="offset points",
        ha="center",
    )
    axes.set(title="Accuracy on the test digits", ylabel="accuracy", ylim=(None, 1.01))
