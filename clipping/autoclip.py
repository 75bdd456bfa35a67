"""Clipping at a percentile of the gradient norms, or at outliers among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np

from clipping import norm_rows, sliding, window
from clipping.clipper import Clipper
from clipping.records import Array, Measured, Mode, Ops, State, Weighting, Window
from clipping.state_dict import Column
from clipping.validation import check_choice, check_count, check_number

OUTLIER_STDS = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AutoClip(Clipper):
    """Clip a gradient whose L2 norm g exceeds a threshold T by the factor ``T / (g + eps)``.

    - ``mode="auto"``: T is the median plus 3 sample standard deviations of the last
      ``window_size`` norms before this step, and the history takes in the norm after clipping, so
      that a spike does not raise its own threshold. There is none while there are less than two
      norms. Norms that are all alike have no deviation, so that
      everything above them is clipped to them.
    - ``mode="percentile", history="window"``: T is the percentile (linear interpolation) of the
      last ``window_size`` norms, this step's included.
    - ``mode="percentile", history="ema"``: the same with weights ``ema_decay ** age``.

    Nothing is clipped to a T of 0, such as after gradients that were all 0.

    Every group has a history of its own, of ``window_size`` norms. On an accelerator they take 4
    bytes each, on the host 8, and 4 kB a group for what makes the quantile cheap: 24 MB for 2,000
    groups of 1,024 norms.

    Args:
        mode: ``"auto"`` or ``"percentile"``.
        percentile: In (0, 100]; 100 never clips. For ``mode="percentile"``.
        history: ``"ema"`` or ``"window"``. For ``mode="percentile"``.
        ema_decay: In (0, 1). For ``history="ema"``.
        window_size: How many norms are remembered; at least 2 for ``mode="auto"``.
        scope: What forms a group: ``"global"``, the whole model, ``"per_layer"`` or
            ``"per_param"``.
        warmup_steps: How many optimizer steps are only observed.
        min_history: How many norms of a group there must be before this step's for it to be
            clipped. The very first is never clipped.
        eps: Positive, in units of the norm.
        guard_nans: False means ``on_nonfinite="propagate"``.
        on_nonfinite: ``"skip"`` zeroes all gradients of a step that has a NaN or an infinity in
            them, ``"zero"`` those of the offending groups, ``"propagate"`` leaves them,
            ``"raise"`` raises FloatingPointError, which has to read the device. A norm that
            overflows its precision counts as infinite. None of them enters the history.
        dry_run: Report what would be done, and leave the gradients alone.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> import clipping
        >>> clipper = AutoClip(mode="percentile", percentile=50, history="window",
        ...                    warmup_steps=0, min_history=1)
        >>> for norm in (1.0, 2.0, 9.0):
        ...     grads = clipping.numpy.apply_grads([np.array([norm])], [np.zeros(1)], clipper)
        ...     print(clipper.threshold_any(), grads[0].round(6))
        1.0 [1.]
        1.5 [1.5]
        2.0 [2.]

    References:
        Seetharaman, Wichern, Pardo, Le Roux (2020), "AutoClip: Adaptive Gradient Clipping for
        Source Separation Networks", arXiv:2007.14469. That the history takes in clipped norms is
        from Kumar, Owen, Chowdhury, Guera (2025), "ZClip", arXiv:2504.02507.
    """

    algo: ClassVar[str] = "autoclip"

    mode: Mode = "auto"
    percentile: float = 95.0
    history: Weighting = "ema"
    ema_decay: float = 0.99
    window_size: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("AutoClip", "mode", self.mode, get_args(Mode))
        check_number("AutoClip", "percentile", self.percentile, "(0, 100]")
        check_choice("AutoClip", "history", self.history, get_args(Weighting))
        check_number("AutoClip", "ema_decay", self.ema_decay, "(0, 1)")
        check_count("AutoClip", "window_size", self.window_size, 2 if self.mode == "auto" else 1)

    @property
    def quantile(self) -> float:
        """Which quantile of the norms is asked for, in [0, 1]."""
        return 0.5 if self.mode == "auto" else self.percentile / 100

    @property
    def decay(self) -> float:
        """By which factor a norm's weight falls per norm that came after it."""
        by_age = self.mode == "percentile" and self.history == "ema"
        return self.ema_decay if by_age else 1.0

    def empty(self, ops: Ops, rows: int) -> Any:
        """See `Clipper.empty`."""
        if ops.on_host:
            return sliding.empty(rows, self.window_size, with_std=self.mode == "auto")
        return window.empty(ops, rows, self.window_size)

    def seen(self, state: State) -> Array:
        """See `Clipper.seen`."""
        return state.history.count

    def estimate(
        self,
        ops: Ops,
        history: Any,
        measured: Measured,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, Any]:
        """See `Clipper.estimate`."""
        if self.mode == "auto":
            threshold = self._outlier(ops, history)
            return threshold, self._push(ops, history, measured.norms * cut(threshold), observed)
        history = self._push(ops, history, measured.norms, observed)
        return self._quantile(ops, history), history

    def columns(self, steps: int) -> Mapping[str, Column]:
        """See `Clipper.columns`."""
        return norm_rows.columns(steps)

    def accepted(self, columns: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        """See `Clipper.accepted`: the newest norms, as many as are remembered."""
        norm_rows.verify(columns)
        return norm_rows.newest(columns, self.window_size)

    def describe(self, ops: Ops, state: State) -> dict[str, list[Any]]:
        """See `Clipper.describe`."""
        thresholds = ops.to_host(state.threshold)
        if ops.on_host:
            ring, count, anchor = sliding.pack(state.history)
            return norm_rows.dump(thresholds, ring, count, anchor if self.decay < 1 else None)
        ring, count = map(ops.to_host, state.history)
        return norm_rows.dump(thresholds, ring, count, None)

    def restore(self, ops: Ops, rows: int, columns: Mapping[str, list[Any]], steps: int) -> State:
        """See `Clipper.restore`."""
        thresholds, ring, count, anchor = norm_rows.load(columns, self.window_size)
        if ops.on_host:
            with_std = self.mode == "auto"
            known: Any = sliding.unpack(
                ring, count, anchor, self.quantile, self.decay, with_std=with_std
            )
        else:
            known = Window(ops.from_host(ring), ops.from_host(count))
        return State(ops.from_host(np.array(steps)), ops.from_host(thresholds), known)

    def _push(self, ops: Ops, history: Any, norms: Array, observed: Array) -> Any:
        if ops.on_host:
            return sliding.push(history, norms, observed, self.quantile, self.decay)
        return window.push(ops, history, norms, observed)

    def _quantile(self, ops: Ops, history: Any) -> Array:
        if ops.on_host:
            return sliding.quantile(history, self.quantile, self.decay)
        return ops.quantile(history, self.quantile, self.decay)

    def _outlier(self, ops: Ops, history: Any) -> Array:
        std = sliding.sample_std(history) if ops.on_host else window.sample_std(ops, history)
        threshold = self._quantile(ops, history) + OUTLIER_STDS * std
        return ops.where(threshold > 0, threshold, math.inf)
