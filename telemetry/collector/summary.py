"""What a collector has taken in, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from telemetry.collector.history import MetricsHistory
from telemetry.collector.keepable import read_all

LAST: Final = {
    "last_step": "step",
    "last_loss": "loss",
    "last_grad_norm": "grad_norm",
    "last_learning_rate": "lr",
}


def summary_of(history: MetricsHistory, last: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of `MetricsCollector.get_metrics_summary`.

    Args:
        history: The records.
        last: By the name of a measurement, the mapping that has its last value.
    """
    records = list(history)
    losses = [
        record["metrics"]["loss"]
        for record in records
        if record["event"] == "training.step" and _is_finite(record["metrics"].get("loss"))
    ]
    return {
        "num_metrics": history.total,
        **_last(last),
        "mean_loss": _mean(losses) if losses else None,
        "min_loss": min(losses, default=None),
        "latest": {
            f"{record['event'].partition('.')[0]}.{name}": value
            for record in records
            for name, value in record["metrics"].items()
        },
    }


def _last(last: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    (read,) = read_all([{name: values[name] for name, values in last.items()}])
    return {key: read.get(name) for key, name in LAST.items()}


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # of the sum; the mean is a float all the same
        largest = max(map(abs, values))
        return math.fsum(value / largest for value in values) / len(values) * largest


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
