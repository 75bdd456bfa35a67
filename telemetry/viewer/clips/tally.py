"""What a gradient clipper did, or would have done, over a run."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TallySummary(NamedTuple):
    """What is said of a clipper; None where there is nothing to say.

    Attributes:
        steps: How many steps there were.
        nonfinite: In how many of them a norm was NaN or infinite.
        clipped: In how many of the others something was clipped.
        clip_rate: The same as a share of all steps.
        first_clipped: The first of them.
        threshold_mean: Of the thresholds that there were.
        threshold_median: Likewise.
        threshold_last: Likewise.
        scale_mean: Of the factors in steps whose norms are finite; 1 where nothing was clipped.
        scale_min: Likewise.
    """

    steps: int
    nonfinite: int
    clipped: int
    clip_rate: float | None
    first_clipped: float | None
    threshold_mean: float | None
    threshold_median: float | None
    threshold_last: float | None
    scale_mean: float | None
    scale_min: float | None


class Tally:
    """The decisions of one clipper, step by step; 16 bytes a step.

    Example:
        >>> tally = Tally()
        >>> tally.add(0, math.inf, 1.0, finite=True)
        >>> tally.add(1, 2.0, 0.5, finite=True)
        >>> tally.add(2, 2.0, 0.0, finite=False)
        >>> summary = tally.summary(np.array([10.0, 20.0, 30.0]))
        >>> summary.clipped, summary.nonfinite, summary.first_clipped, summary.scale_mean
        (1, 1, 20.0, 0.75)
    """

    def __init__(self) -> None:
        self._thresholds = array("d")
        self._scales = array("d")
        self._first: int | None = None

    def add(self, place: int, threshold: float, scale: float, *, finite: bool) -> None:
        """Take in a step.

        Args:
            place: Which of the run's steps it is, counted from 0.
            threshold: What the norm was held against; infinite or NaN where there was nothing.
            scale: The smallest factor.
            finite: Whether all norms were.
        """
        self._thresholds.append(threshold)
        self._scales.append(scale if finite else math.nan)
        if finite and scale < 1 and self._first is None:
            self._first = place

    def forget_thresholds(self) -> None:
        """Go on as if there had been none."""
        self._thresholds = array("d", [math.nan]) * len(self._thresholds)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """Of each step, NaN where there was none."""
        values = np.array(self._thresholds)
        return np.where(np.isfinite(values), values, np.nan)

    @property
    def scales(self) -> NDArray[np.float64]:
        """Of each step, NaN where a norm was not finite."""
        return np.array(self._scales)

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """Of each step, whether something was clipped; not where a norm was not finite."""
        return self.scales < 1

    def summary(self, steps_of_run: NDArray[np.float64]) -> TallySummary:
        """What is to be said of them all.

        Args:
            steps_of_run: The numbers of the run's steps.
        """
        thresholds, scales = self.thresholds, self.scales
        known, factors = thresholds[~np.isnan(thresholds)], scales[~np.isnan(scales)]
        steps, clipped = len(scales), int((factors < 1).sum())
        return TallySummary(
            steps=steps,
            nonfinite=steps - len(factors),
            clipped=clipped,
            clip_rate=clipped / steps if steps else None,
            first_clipped=None if self._first is None else float(steps_of_run[self._first]),
            threshold_mean=float(known.mean()) if len(known) else None,
            threshold_median=float(np.median(known)) if len(known) else None,
            threshold_last=float(known[-1]) if len(known) else None,
            scale_mean=float(factors.mean()) if len(factors) else None,
            scale_min=float(factors.min()) if len(factors) else None,
        )
