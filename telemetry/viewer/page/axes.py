"""Where points are on the page's horizontal axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from telemetry.viewer.frames.axes import TIME, Unit, unit_of
from telemetry.viewer.frames.epochs import Offsets, count_on
from telemetry.viewer.frames.origins import Origin, find_origins
from telemetry.viewer.frames.points import Floats
from telemetry.viewer.page.recorded import Points
from telemetry.viewer.page.watched import Snapshot

AXES: Final = ("step", "time", "epoch")
STEPLESS: Final = Unit("", 1.0)

_SECOND: Final = 1e6
_NOWHERE: Final = Origin(None, None, 0, 0)


class Axes(NamedTuple):
    """What the places of points depend on.

    Attributes:
        available: The axes on which there are points at all.
        starts: When each run began, in seconds since 1970; NaN where no record has a time.
        unit: In which times are read best.
        offsets: Of runs whose steps begin anew in each epoch, by the run's number.
    """

    available: tuple[str, ...]
    starts: Floats
    unit: Unit
    offsets: Mapping[int, Offsets]

    def unit_on(self, axis: str) -> Unit:
        """In which unit places on an axis are told."""
        return self.unit if axis == TIME else STEPLESS

    def places(self, points: Points, axis: str, run: int) -> Floats:
        """Where points of a run are; NaN where they say nothing of it."""
        if axis == TIME:
            return (points.second - float(self.starts[run])) / self.unit.seconds
        if axis == "epoch":
            return points.epoch
        offsets = self.offsets.get(run)
        return points.step if offsets is None else count_on(points.step, points.epoch, offsets)


def find_axes(snapshot: Snapshot) -> Axes:
    """Look at what the records of each run say of where they are.

    Args:
        snapshot: What was read of the logs.
    """
    found = find_origins(snapshot.records.connection.cursor())
    origins = [found.get(run, _NOWHERE) for run in snapshot.runs]
    starts = [np.nan if each.began is None else each.began / _SECOND for each in origins]
    longest = max(((each.ended or 0) - (each.began or 0) for each in origins), default=0)
    there = {
        "step": any(each.steps for each in origins),
        "time": any(each.began is not None for each in origins),
        "epoch": any(each.epochs for each in origins),
    }
    return Axes(
        tuple(axis for axis in AXES if there[axis]),
        np.array(starts),
        unit_of(longest / _SECOND),
        {n: each.offsets for n, each in enumerate(origins) if each.offsets is not None},
    )
