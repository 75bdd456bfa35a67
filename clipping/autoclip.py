"""Clipping at a percentile of the gradient norms, or at outliers among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, get_args

from clipping.clipper import Clipper
from clipping.records import Array, Mode, Ops, Weighting, Window
from clipping.validation import check_choice, check_count, check_number
from clipping.window import push, quantile, sample_std

OUTLIER_STDS = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class AutoClip(Clipper):
    """Clip a gradient whose L2 norm g exceeds a threshold T by the factor ``T / (g + eps)``.

    - ``mode="auto"``: T is the median plus 3 sample standard deviations of the last
      ``window_size`` norms before this step, and the history takes in the norm after clipping, so
      that a spike does not raise its own threshold. There is none while there are less than two
      norms, or while all of them are 0. Norms that are all alike have no deviation, so that
      everything above them is clipped to them.
    - ``mode="percentile", history="window"``: T is the percentile (linear interpolation) of the
      last ``window_size`` norms, this step's included.
    - ``mode="percentile", history="ema"``: the same with weights ``ema_decay ** age``.

    The history is one float per norm: 8 bytes on the host, 4 on an accelerator.

    Args:
        mode: ``"auto"`` or ``"percentile"``.
        percentile: In (0, 100]; 100 never clips. For ``mode="percentile"``.
        history: ``"ema"`` or ``"window"``. For ``mode="percentile"``.
        ema_decay: In (0, 1). For ``history="ema"``.
        window_size: How many norms are remembered; at least 2 for ``mode="auto"``.
        scope: ``"global"``: the norm is that of the whole model.
        warmup_steps: How many optimizer steps are only observed.
        min_history: How many norms there must be before this step's for it to be clipped. The
            very first is never clipped.
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
    def history_size(self) -> int:
        """How many norms of each group are remembered: ``window_size``."""
        return self.window_size

    def estimate(
        self,
        ops: Ops,
        window: Window,
        norms: Array,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, Window]:
        """See `Clipper.estimate`."""
        if self.mode == "auto":
            threshold = _outlier(ops, window)
            return threshold, push(ops, window, norms * cut(threshold), observed)
        window = push(ops, window, norms, observed)
        decay = self.ema_decay if self.history == "ema" else 1.0
        return quantile(ops, window, self.percentile / 100, decay), window


def _outlier(ops: Ops, window: Window) -> Array:
    threshold = quantile(ops, window, 0.5) + OUTLIER_STDS * sample_std(ops, window)
    # Clipping to a threshold of 0 would never let the history be anything but zeros again.
    return ops.where(threshold > 0, threshold, math.inf)
