"""The panel of gradient clipping: norms with their threshold, how often, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from telemetry.viewer.charts.curves import Curve
from telemetry.viewer.frames.downsampling import keep
from telemetry.viewer.frames.smoothing import moving_average
from telemetry.viewer.logs.clipped import IS_CLIPPED, IS_DRY_RUN, IS_STOP
from telemetry.viewer.page.axes import Axes
from telemetry.viewer.page.drawing import Look, draw, placed, shown
from telemetry.viewer.page.recorded import Derived, Recorded
from telemetry.viewer.page.watched import Snapshot

SCALE: Final = "smartclip.scale"
NORM: Final = "smartclip.grad_norm"
LIMITS: Final = ("smartclip.threshold", "smartclip.target")
RATE: Final = "clip rate"
CLIPPED: Final = Derived("whether it clipped", IS_STOP, f"({IS_CLIPPED})::DOUBLE")
DRY_RUN: Final = Derived("whether it only watched", IS_STOP, f"({IS_DRY_RUN})::DOUBLE")


def clipping_told(
    snapshot: Snapshot,
    recorded: Recorded,
    axes: Axes,
    *,
    runs: Sequence[int],
    look: Look,
    window: int,
) -> dict[str, Any]:
    """What clippers have done in some runs.

    Args:
        snapshot: What was read of the logs.
        recorded: Reads the points.
        axes: What places depend on.
        runs: The numbers of the runs.
        look: How curves are looked at. Norms, thresholds and scales are not smoothed: what was
            clipped would not be seen.
        window: Of how many clippings the clip rate is told.

    Returns:
        ``curves`` with a ``panel`` each; ``marks``, where clipped norms are; ``totals``, how many
        clippings there were in each run and how many of them clipped. Dry runs count for a run
        that has no others; its marks and totals are ``dry_run``.
    """
    found = recorded.points(snapshot, (NORM, *LIMITS, SCALE), (CLIPPED, DRY_RUN))
    plain = look._replace(window=1)
    told: dict[str, Any] = {"curves": [], "marks": [], "totals": []}
    for run in runs:
        for name in (each for each in (NORM, *LIMITS, SCALE) if each in found):
            mine, x = placed(found[name], axes, run, look.axis)
            if len(x):
                panel = "scale" if name == SCALE else "norm"
                drawn = draw(Curve(x, mine.value), plain)
                told["curves"].append({"panel": panel, "metric": name, "run": run, **drawn})
        _tell_clipped(told, found, axes, run, plain, window)
    return told


def _tell_clipped(
    told: dict[str, Any], found: dict[str, Any], axes: Axes, run: int, look: Look, window: int
) -> None:
    mine, x = placed(found[CLIPPED.name], axes, run, look.axis)
    if not len(x):
        return
    watched = placed(found[DRY_RUN.name], axes, run, look.axis)[0].value > 0
    dry_run = bool(watched.all())
    if not dry_run:
        mine, x = mine.where(~watched), x[~watched]
    clipped = mine.value > 0
    rate = shown(Curve(x, moving_average(mine.value, window)), look)
    told["curves"].append(
        {"panel": "rate", "metric": RATE, "run": run, "x": rate.x, "y": rate.y, "odd": []}
    )
    count = int(np.count_nonzero(clipped))
    told["totals"].append(
        {"run": run, "clippings": len(clipped), "clipped": count, "dry_run": dry_run}
    )
    if NORM in found:
        norms, places = placed(found[NORM], axes, run, look.axis)
        is_clipped = np.isin(norms.row, mine.row[clipped])
        is_clipped &= (places >= look.start) & (places <= look.end)
        at, norm = places[is_clipped], norms.value[is_clipped]
        kept = keep(at, norm, look.points)
        told["marks"].append({"run": run, "x": at[kept], "y": norm[kept], "dry_run": dry_run})
