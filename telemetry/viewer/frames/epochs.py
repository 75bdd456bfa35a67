"""One axis of steps over epochs in each of which the steps start anew."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from telemetry.viewer.frames.points import Floats, check_frame, runs_of
from telemetry.viewer.logs.leading import leading

if TYPE_CHECKING:
    from pandas import DataFrame


def global_step(data: DataFrame) -> DataFrame:
    """Count steps on over the epochs, where a log begins at the first one in each epoch.

    A run is changed only if the steps of its leading event (``training.step``, ``rl.step``, else
    the most frequent one) go back to the start in each of its epochs: a record of another event
    may have the number of the epoch as its step, and that is left as it is. An epoch has as many
    steps as lie between its first and its last, and one more distance between two of them: from
    10, 20, ... 100 follows 110. A row without an epoch is one of the epoch before it.

    Args:
        data: The frame that `read_jsonl` gives.

    Returns:
        A frame with another column ``step``; a copy of what was given where steps count on anyway,
        or there is no column ``epoch``.

    Raises:
        TypeError: It is no frame.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"epoch": [1, 1, 2, 2], "step": [1, 2, 1, 2]})
        >>> global_step(frame)["step"].tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    frame = check_frame(data, "global_step").copy()
    if "step" in frame.columns:
        frame["step"] = steps_of(frame)
    origins = frame.attrs.get("origins")
    if origins is not None:  # these steps are counted on, and are not to be so again
        frame.attrs["origins"] = {run: {**each, "offsets": None} for run, each in origins.items()}
    return frame


def steps_of(frame: DataFrame) -> Floats:
    """The steps of a frame's rows, as `global_step` counts them; NaN where there is none.

    What is before an epoch is what ``attrs["origins"]`` says of the whole log, which may have more
    records than the frame; of a run that is not in it, what the rows say.
    """
    if "step" not in frame.columns:
        return np.full(len(frame), np.nan)
    steps = frame["step"].to_numpy(dtype=np.float64, copy=True)
    if "epoch" in frame.columns:
        epochs = frame["epoch"].to_numpy(dtype=np.float64)
        origins = frame.attrs.get("origins", {})
        for run, rows in runs_of(frame):
            if run in origins:
                known = origins[run]["offsets"]
                offsets = None if known is None else Offsets(*map(np.asarray, known))
            else:
                offsets = _offsets_of(frame.iloc[rows], steps[rows], _filled(epochs[rows]))
            if offsets is not None:
                steps[rows] = count_on(steps[rows], epochs[rows], offsets)
    return steps


class Offsets(NamedTuple):
    """What is before each epoch of a run.

    Attributes:
        epochs: Their numbers, in order.
        before: The steps of all epochs before each.
    """

    epochs: Floats
    before: Floats


def epoch_offsets(steps: Floats, epochs: Floats) -> Offsets | None:
    """What the steps of each epoch of one run are counted on from; None where they count on anyway.

    Args:
        steps: Those that were recorded, all finite.
        epochs: The whole epoch of each, likewise.

    Example:
        >>> epoch_offsets(np.array([1.0, 2, 1, 2]), np.array([1.0, 1, 2, 2])).before.tolist()
        [0.0, 2.0]
    """
    found = _epochs_of(steps, epochs)
    if not _restarts(found):
        return None
    lengths = np.array([epoch.length for epoch in found])
    return Offsets(np.array([epoch.number for epoch in found]), np.cumsum(lengths) - lengths)


def count_on(steps: Floats, epochs: Floats, offsets: Offsets) -> Floats:
    """Steps counted on over the epochs.

    Args:
        steps: Of points in order, NaN where one has none.
        epochs: Of the same points, NaN where one has none: it is of the epoch before it.
        offsets: What is before each epoch.

    Example:
        >>> offsets = Offsets(np.array([1.0, 2.0]), np.array([0.0, 100.0]))
        >>> count_on(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.5, np.nan]), offsets).tolist()
        [1.0, 101.0, 102.0]
    """
    numbers = np.nan_to_num(_filled(epochs), nan=-np.inf)
    here = np.searchsorted(offsets.epochs, numbers, side="right") - 1
    return steps + offsets.before[np.clip(here, 0, None)]


class _Epoch(NamedTuple):
    number: float
    steps: Floats  # in order, each once

    @property
    def first(self) -> float:
        return float(self.steps[0])

    @property
    def last(self) -> float:
        return float(self.steps[-1])

    @property
    def length(self) -> float:
        if len(self.steps) == 1:  # the only step of an epoch is its last one
            return max(self.last, 1.0)
        return self.last - self.first + float(np.median(np.diff(self.steps)))


def _filled(epochs: Floats) -> Floats:
    """Whole epochs; what has none has that of the row before it."""
    known: NDArray[np.bool_] = np.isfinite(epochs)
    if not known.any():
        return epochs
    before = np.maximum.accumulate(np.where(known, np.arange(len(epochs)), -1))
    return np.floor(epochs[np.where(before < 0, np.argmax(known), before)])


def _offsets_of(run: DataFrame, steps: Floats, epochs: Floats) -> Offsets | None:
    stepped = np.isfinite(steps) & np.isfinite(epochs)
    if "event" in run.columns and stepped.any():
        events = run["event"].to_numpy(dtype=object)
        stepped &= events == leading(Counter(events[stepped]))
    return epoch_offsets(steps[stepped], epochs[stepped])


def _epochs_of(steps: Floats, epochs: Floats) -> list[_Epoch]:
    if not len(steps):
        return []
    order = np.argsort(epochs, kind="stable")
    numbers, starts = np.unique(epochs[order], return_index=True)
    groups = np.split(steps[order], starts[1:])
    return [_Epoch(n, np.unique(group)) for n, group in zip(numbers, groups, strict=True)]


def _restarts(epochs: list[_Epoch]) -> bool:
    several = [epoch for epoch in epochs if len(epoch.steps) > 1] or epochs
    return len(several) > 1 and all(itertools.starmap(_begins_anew, itertools.pairwise(several)))


def _begins_anew(before: _Epoch, after: _Epoch) -> bool:
    """Whether an epoch begins in the first half of the one before it, and not with a stray step."""
    again = int(np.count_nonzero(after.steps <= before.last))
    fewer = min(len(before.steps), len(after.steps))
    return after.first <= (before.first + before.last) / 2 and again > fewer / 2
