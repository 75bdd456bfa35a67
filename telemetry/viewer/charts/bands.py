"""Several seeds of one run as one line with a band around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.charts.labels import family_of
from telemetry.viewer.frames.points import Floats

Band: TypeAlias = Literal["minmax", "std"]
BANDS: Final[tuple[str, ...]] = get_args(Band)


def check_band(band: object) -> None:
    """Raise ValueError for a kind of band that does not exist."""
    if band is not None and band not in BANDS:
        raise ValueError(f"band must be one of {', '.join(BANDS)} or None, got {band!r}.")


def banded(lines: Sequence[Line], band: Band, *, by_name: bool) -> list[Line]:
    """The mean of the runs that belong together, and how far they are apart.

    A run with several values at one place, as it has on an axis of epochs, is their mean there.
    Where runs have other places than each other, they are interpolated linearly, and never beyond
    their ends: where a run has ended, the mean is that of the others. Where one is infinite, so is
    the mean; the band is that of the others, and so are both between its finite values beside the
    infinity.

    Args:
        lines: One for each run and metric.
        band: ``"minmax"`` from the lowest value of any run to the highest, ``"std"`` a standard
            deviation of the runs (of a sample) below and above their mean.
        by_name: Whether runs belong together if their names differ in the seed, or the last number,
            only. Otherwise those with the same label do.

    Returns:
        A line for each such family and metric. A run without others stays as it is.

    Raises:
        ValueError: No run has others that belong to it.
    """
    families: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        family = family_of(line.run) if by_name else line.run
        families.setdefault((line.metric, family), []).append(line)
    if all(len(members) == 1 for members in families.values()):
        names = ", ".join(dict.fromkeys(line.run for line in lines))
        raise ValueError(
            "A band needs several runs whose names differ only in their seed or last number, such "
            f"as digits-seed1 and digits-seed2, or that were given the same label. Runs: {names}."
        )
    return [
        members[0] if len(members) == 1 else _mean_of(family, members, band)
        for (_, family), members in families.items()
    ]


class _Settled(NamedTuple):
    """A run with one place for each of its values; NaN where it is infinite."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def _mean_of(family: str, members: Sequence[Line], band: Band) -> Line:
    runs = [_settled(line.curve) for line in members]
    x = np.unique(np.concatenate([run.x for run in runs]))
    infinities = _infinities(x, members)
    values = np.vstack([_at(x, run.x, run.mean) for run in runs])
    some = ~np.isnan(values).all(axis=0) | (infinities != 0)
    x, values, infinities = x[some], values[:, some], infinities[some]
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    mean = np.where(count > 0, np.where(present, values, 0.0).sum(axis=0) / count.clip(1), np.nan)
    if band == "minmax":
        low = np.fmin.reduce([_at(x, run.x, run.low) for run in runs])
        high = np.fmax.reduce([_at(x, run.x, run.high) for run in runs])
    else:
        distance = np.hypot.reduce(np.where(present, values - mean, 0.0), axis=0)  # of any size
        apart = distance / np.sqrt(np.maximum(count - 1, 1))
        low, high = mean - apart, mean + apart
    mean = np.where(infinities != 0, infinities, mean)
    run = f"{family} ({len(members)} runs)"
    return Line(members[0].metric, run, Curve(x, mean), low=low, high=high)


def _infinities(x: Floats, members: Sequence[Line]) -> Floats:
    """At which places a run is infinite, and so their mean: 0 at the others."""
    infinities = np.zeros(len(x))
    for infinity in (-np.inf, np.inf):
        for line in members:
            infinities[np.isin(x, line.curve.x[line.curve.y == infinity])] = infinity
    return infinities


def _settled(curve: Curve) -> _Settled:
    order = np.argsort(curve.x, kind="stable")
    x, first, count = np.unique(curve.x[order], return_index=True, return_counts=True)
    y = np.where(np.isfinite(curve.y), curve.y, np.nan)[order]
    return _Settled(
        x,
        np.add.reduceat(y, first) / count,
        np.minimum.reduceat(y, first),
        np.maximum.reduceat(y, first),
    )


def _at(x: Floats, places: Floats, values: Floats) -> Floats:
    """The values of a run at other places; NaN outside of it, and beside what is infinite."""
    return np.interp(x, places, values, left=np.nan, right=np.nan)
