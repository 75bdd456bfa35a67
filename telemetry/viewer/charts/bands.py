"""Several seeds of one run as one line with a band around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

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

    Where runs have other steps than each other, they are interpolated linearly, and never beyond
    their ends: where a run has ended, the mean is that of the others. Where one is infinite, so is
    the mean; the band is that of the others.

    Args:
        lines: One for each run and metric.
        band: ``"minmax"`` from the lowest run to the highest, ``"std"`` a standard deviation (of a
            sample) below and above the mean.
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


def _mean_of(family: str, members: Sequence[Line], band: Band) -> Line:
    x = np.unique(np.concatenate([line.curve.x for line in members]))
    values = np.vstack([_at(x, line.curve) for line in members])
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    infinities = _infinities(x, members)
    some = (count > 0) | (infinities != 0)
    x, values, present, count = x[some], values[:, some], present[:, some], count[some]
    mean = np.where(count > 0, np.where(present, values, 0.0).sum(axis=0) / count.clip(1), np.nan)
    if band == "minmax":
        low = np.where(present, values, np.inf).min(axis=0)
        high = np.where(present, values, -np.inf).max(axis=0)
    else:
        squares = np.where(present, values - mean, 0.0) ** 2
        apart = np.sqrt(squares.sum(axis=0) / np.maximum(count - 1, 1))
        low, high = mean - apart, mean + apart
    low, high = (np.where(count > 0, each, np.nan) for each in (low, high))
    mean = np.where(infinities[some] != 0, infinities[some], mean)
    run = f"{family} ({len(members)} runs)"
    return Line(members[0].metric, run, Curve(x, mean), low=low, high=high)


def _infinities(x: Floats, members: Sequence[Line]) -> Floats:
    """At which places a run is infinite, and so their mean: 0 at the others."""
    infinities = np.zeros(len(x))
    for infinity in (-np.inf, np.inf):
        for line in members:
            infinities[np.isin(x, line.curve.x[line.curve.y == infinity])] = infinity
    return infinities


def _at(x: Floats, curve: Curve) -> Floats:
    """The values of a curve at other places; NaN outside of it, and where nothing is finite."""
    finite = np.isfinite(curve.y)
    if not finite.any():
        return np.full(len(x), np.nan)
    xs, first = np.unique(curve.x[finite], return_index=True)
    return np.interp(x, xs, curve.y[finite][first], left=np.nan, right=np.nan)
