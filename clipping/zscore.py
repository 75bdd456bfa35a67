"""Clipping at a number of standard deviations above the running mean of the gradient norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clipping.clipper import Clipper
from clipping.records import Array, Measured, Moments, Ops, State
from clipping.state_dict import THRESHOLDS, Column, counts, is_norm
from clipping.validation import check_number

_NORMS = Column(is_norm, "finite numbers of at least 0")


@dataclass(frozen=True, kw_only=True, eq=False)
class ZScoreClip(Clipper):
    """Clip a gradient whose L2 norm g exceeds T = mean + zmax * std by ``T / (g + eps)``.

    Mean and standard deviation are those of the norms before this step, with weights
    ``ema_decay ** age`` that sum to 1: the exponential moving averages without their bias towards
    the start. The history takes in the norm after clipping, so that a spike does not raise its own
    threshold. While all norms are 0 there is no threshold. Norms that are all alike have no
    deviation, so that everything above them is clipped to them. A norm so large that its square
    overflows is not learned.

    Every group has a history of its own, of four numbers.

    Args:
        zmax: Positive: how many standard deviations above the mean a norm may be.
        ema_decay: In (0, 1).
        scope: What forms a group: ``"global"``, the whole model, ``"per_layer"`` or
            ``"per_param"``.
        warmup_steps: How many optimizer steps are only observed.
        min_history: How many norms of a group there must be before this step's for it to be
            clipped. The very first is never clipped.
        eps: Positive, in units of the norm.
        guard_nans: See `AutoClip`.
        on_nonfinite: See `AutoClip`.
        dry_run: Report what would be done, and leave the gradients alone.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> import clipping
        >>> clipper = ZScoreClip(zmax=1.0, ema_decay=0.5, warmup_steps=0, min_history=2)
        >>> for norm in (1.0, 4.0, 9.0):
        ...     grads = clipping.numpy.apply_grads([np.array([norm])], [np.zeros(1)], clipper)
        >>> clipper.threshold_any(), grads[0].round(6)  # 3 + sqrt(2), of the weights 1/3 and 2/3
        (4.414213562373095, array([4.414214]))

    References:
        Kumar, Owen, Chowdhury, Guera (2025), "ZClip: Adaptive Spike Mitigation for LLM
        Pre-Training", arXiv:2504.02507. The exact update of weighted moments: Finch (2009),
        "Incremental calculation of weighted mean and variance".
    """

    algo: ClassVar[str] = "zscore"

    zmax: float = 3.0
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("ZScoreClip", "zmax", self.zmax, "(0, inf)")
        check_number("ZScoreClip", "ema_decay", self.ema_decay, "(0, 1)")

    def empty(self, ops: Ops, rows: int) -> Moments:
        """See `Clipper.empty`."""
        mean, variance, weight = (ops.full((rows,), 0.0) for _ in range(3))
        return Moments(mean, variance, weight, ops.zero_counts((rows,)))

    def seen(self, state: State) -> Array:
        """See `Clipper.seen`."""
        return state.history.count

    def estimate(
        self,
        ops: Ops,
        history: Moments,
        measured: Measured,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, Moments]:
        """See `Clipper.estimate`."""
        threshold = history.mean + self.zmax * ops.sqrt(history.variance)
        # Clipping to a threshold of 0 would never let the history be anything but zeros again.
        threshold = ops.where(threshold > 0, threshold, math.inf)
        norms = measured.norms * cut(threshold)
        return threshold, self._push(ops, history, norms, observed)

    def columns(self, steps: int) -> Mapping[str, Column]:
        """See `Clipper.columns`."""
        return {
            "thresholds": THRESHOLDS,
            "means": _NORMS,
            "variances": _NORMS,
            "weights": _NORMS,
            "counts": counts(steps),
        }

    def describe(self, ops: Ops, state: State) -> dict[str, list[Any]]:
        """See `Clipper.describe`."""
        thresholds = ops.to_host(state.threshold).tolist()
        mean, variance, weight, count = (ops.to_host(m).tolist() for m in state.history)
        return {
            "thresholds": [None if math.isinf(t) else t for t in thresholds],
            "means": mean,
            "variances": variance,
            "weights": weight,
            "counts": count,
        }

    def restore(self, ops: Ops, rows: int, columns: Mapping[str, list[Any]], steps: int) -> State:
        """See `Clipper.restore`."""
        thresholds = [math.inf if t is None else t for t in columns["thresholds"]]
        floats = (np.array(columns[name], np.float64) for name in ("means", "variances", "weights"))
        counts = np.array(columns["counts"], np.int64)
        history = Moments(*map(ops.from_host, (*floats, counts)))
        return State(ops.from_host(np.array(steps)), ops.from_host(np.array(thresholds)), history)

    def _push(self, ops: Ops, history: Moments, norms: Array, observed: Array) -> Moments:
        mean, variance, weight, count = history
        ahead = norms - mean
        with np.errstate(over="ignore"):
            # What has no square has no variance: taken in, it would end all clipping for good.
            observed = observed & ops.isfinite(variance + ahead * ahead)
        weight = ops.where(observed, 1.0 + self.ema_decay * weight, weight)
        share = ops.where(observed, 1.0 / ops.maximum(weight, 1.0), 0.0)
        mean = mean + share * ahead
        variance = (1.0 - share) * (variance + share * ahead * ahead)
        return Moments(mean, variance, weight, ops.where(observed, count + 1, count))
