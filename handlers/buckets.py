"""Buckets of histograms for which nobody has said any."""

from __future__ import annotations

from typing import Final

from telemetry.metrics import Metric

_STEPS: Final = (1.0, 2.5, 5.0)
_DECADES: Final = {
    "ns": (3, 13),
    "us": (1, 10),
    "ms": (-1, 7),
    "s": (-4, 4),
    "min": (-5, 3),
    "h": (-6, 2),
    "bytes": (3, 12),
    "kB": (0, 9),
    "MB": (-3, 6),
    "GB": (-6, 3),
    "KiB": (0, 9),
    "MiB": (-3, 6),
    "GiB": (-6, 3),
    "ratio": (-4, 0),
    "percent": (-2, 2),
}
_ANY: Final = (-6, 6)


def buckets_of(metric: Metric) -> tuple[float, ...]:
    """The upper bounds of a metric's buckets, those of its definition or a ladder.

    The ladder is 1, 2.5, 5, 10, ...: of durations from 0.1 ms to hours, of sizes from 1 kB to
    1 TB, and from a millionth to a million where the unit says nothing.

    Example:
        >>> from telemetry.metrics import distribution, summary
        >>> buckets_of(distribution("rl.step.kl_divergence", buckets=[0.05, 0.1]))
        (0.05, 0.1)
        >>> buckets_of(summary("custom_loss.stop.duration"))[:5]
        (0.1, 0.25, 0.5, 1.0, 2.5)
    """
    if metric.buckets:
        return metric.buckets
    lowest, highest = _DECADES.get(metric.unit, _ANY)
    # Through text, because 10.0**-4 * 2.5 is not the number that is written 0.00025.
    steps = [float(f"{step}e{power}") for power in range(lowest, highest) for step in _STEPS]
    return (*steps, float(f"1e{highest}"))
