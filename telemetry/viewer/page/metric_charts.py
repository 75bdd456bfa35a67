"""The charts of metrics: which there are, and their curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from telemetry.viewer.charts.curves import Curve
from telemetry.viewer.frames.selection import default_metrics, panel_of
from telemetry.viewer.page.axes import Axes
from telemetry.viewer.page.drawing import Look, draw, placed
from telemetry.viewer.page.recorded import Recorded
from telemetry.viewer.page.watched import Snapshot


def metrics_told(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The metrics that can be chosen.

    Returns:
        Of each its ``name``, the ``panel`` in which it is drawn with others, and whether it is
        ``first``: looked at when nothing is chosen.
    """
    first = set(default_metrics(snapshot.columns))
    return [
        {"name": name, "panel": panel_of(name), "first": name in first} for name in snapshot.columns
    ]


def curves(
    snapshot: Snapshot,
    recorded: Recorded,
    axes: Axes,
    *,
    metrics: Sequence[str],
    runs: Sequence[int],
    look: Look,
) -> list[dict[str, Any]]:
    """The curves of some metrics in some runs.

    Args:
        snapshot: What was read of the logs.
        recorded: Reads the points.
        axes: What places depend on.
        metrics: Their names; those that are not there have no curves.
        runs: The numbers of the runs.
        look: How they are looked at.

    Returns:
        Of each that has points on the axis its ``metric``, ``run``, and what `draw` gives.
    """
    found = recorded.points(snapshot, metrics)
    told = []
    for metric in metrics:
        for run in runs:
            if metric not in found:
                continue
            points, x = placed(found[metric], axes, run, look.axis)
            if len(x):
                told.append({"metric": metric, "run": run, **draw(Curve(x, points.value), look)})
    return told
