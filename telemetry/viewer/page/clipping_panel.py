"""The panel of gradient clipping: norms with their threshold, how often, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry.viewer.charts.curves import Curve
from telemetry.viewer.frames.downsampling import keep
from telemetry.viewer.frames.points import Floats
from telemetry.viewer.frames.smoothing import moving_average
from telemetry.viewer.logs.clipped import IS_CLIPPED, IS_DRY_RUN, IS_STOP
from telemetry.viewer.page.axes import Axes
from telemetry.viewer.page.drawing import Look, draw, placed, shown
from telemetry.viewer.page.recorded import Derived, Integers, Points, Recorded
from telemetry.viewer.page.watched import Snapshot

SCALE: Final = "smartclip.scale"
NORM: Final = "smartclip.grad_norm"
LIMITS: Final = ("smartclip.threshold", "smartclip.target")
RATE: Final = "clip rate"
OURS: Final = Derived("clippings", IS_STOP, f"({IS_CLIPPED})::INT + 2 * ({IS_DRY_RUN})::INT")
"""What our clippers did: 1 where it clipped, 2 more where it only watched."""


class _Clippings(NamedTuple):
    """What was done in a run: the rows of its clippings, where they are, and which clipped."""

    row: Integers
    x: Floats
    clipped: NDArray[np.bool_]
    dry_run: bool = False


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
    found = recorded.points(snapshot, (NORM, *LIMITS, SCALE), (OURS,))
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
    told: dict[str, Any],
    found: Mapping[str, Points],
    axes: Axes,
    run: int,
    look: Look,
    window: int,
) -> None:
    made = _of_ours(found, axes, run, look.axis) or _of_others(found, axes, run, look.axis)
    if made is None:
        return
    rate = shown(Curve(made.x, moving_average(made.clipped.astype(np.float64), window)), look)
    told["curves"].append(
        {"panel": "rate", "metric": RATE, "run": run, "x": rate.x, "y": rate.y, "odd": []}
    )
    count = int(np.count_nonzero(made.clipped))
    told["totals"].append(
        {"run": run, "clippings": len(made.x), "clipped": count, "dry_run": made.dry_run}
    )
    if NORM in found:
        norms, places = placed(found[NORM], axes, run, look.axis)
        is_clipped = np.isin(norms.row, made.row[made.clipped])
        is_clipped &= (places >= look.start) & (places <= look.end)
        at, norm = places[is_clipped], norms.value[is_clipped]
        kept = keep(at, norm, look.points)
        told["marks"].append({"run": run, "x": at[kept], "y": norm[kept], "dry_run": made.dry_run})


def _of_ours(found: Mapping[str, Points], axes: Axes, run: int, axis: str) -> _Clippings | None:
    mine, x = placed(found[OURS.name], axes, run, axis)
    if not len(x):
        return None
    watched, clipped = (part > 0 for part in np.divmod(mine.value, 2))
    if watched.all():
        return _Clippings(mine.row, x, clipped, dry_run=True)
    return _Clippings(mine.row[~watched], x[~watched], clipped[~watched])


def _of_others(found: Mapping[str, Points], axes: Axes, run: int, axis: str) -> _Clippings | None:
    """What other programs have recorded, of which the metrics are all that is known."""
    if SCALE not in found:
        return None
    mine, x = placed(found[SCALE], axes, run, axis)
    if not len(x):
        return None
    clipped = mine.value < 1
    if NORM in found:
        norms = found[NORM]
        clipped &= ~np.isin(mine.row, norms.row[~np.isfinite(norms.value)])
    return _Clippings(mine.row, x, clipped)
