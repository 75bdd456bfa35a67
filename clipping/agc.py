"""Clipping by the ratio of gradient norm to weight norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clipping.clipper import Clipper
from clipping.records import Array, Measured, Ops, Scope, State
from clipping.state_dict import Column
from clipping.validation import check_flag, check_number

LEAST_NORM = 1e-6
"""What the paper's authors divide by at least; the target is far above it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AGC(Clipper):
    """Clip a gradient whose L2 norm g exceeds ``clipping * max(weight norm, eps)`` to that.

    The factor is the target over ``max(g, 1e-6)``. It looks at nothing but this step: there is no
    history, a spike is clipped in the first step, and nothing is learned.

    Args:
        clipping: Positive: the largest gradient norm, as a share of the weight norm.
        exclude_bias_bn: Leave out parameters of at most one dimension (biases, the scales of
            normalisations). They form no group, and count in the model's ``grad_norm``.
        scope: What forms a group: ``"global"``, the whole model, ``"per_layer"``,
            ``"per_param"``, or ``"per_unit"``, the paper's rule: each row or filter of a
            parameter is held against its own weights. Its events are per parameter with one
            number for each unit.
        eps: Positive: the weight norm that is assumed at least, so that weights which start at
            zero can move; the paper's 1e-3.
        warmup_steps: How many optimizer steps are only observed.
        min_history: The same: there is no history of norms.
        guard_nans: See `AutoClip`.
        on_nonfinite: See `AutoClip`.
        dry_run: Report what would be done, and leave the gradients alone.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> import clipping
        >>> clipper = AGC(clipping=0.1, scope="per_unit")
        >>> weights = {"w": np.array([[3.0, 0.0], [4.0, 0.0]])}  # units of norm 5 and 0
        >>> grads = {"w": np.array([[0.3, 1.0], [0.4, 0.0]])}
        >>> clipping.numpy.apply_grads(grads, weights, clipper)["w"].tolist()
        [[0.3, 0.0001], [0.4, 0.0]]

    References:
        Brock, De, Smith, Simonyan (2021), "High-Performance Large-Scale Image Recognition Without
        Normalization", arXiv:2102.06171, section 4.
    """

    algo: ClassVar[str] = "agc"
    scopes: ClassVar[tuple[Scope, ...]] = ("global", "per_layer", "per_param", "per_unit")
    weighs: ClassVar[bool] = True

    clipping: float = 0.01
    exclude_bias_bn: bool = True
    scope: Scope = "per_layer"
    warmup_steps: int = 0
    min_history: int = 0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("AGC", "clipping", self.clipping, "(0, inf)")
        check_flag("AGC", "exclude_bias_bn", self.exclude_bias_bn)

    def leaves_out(self, shape: Sequence[int]) -> bool:
        """See `Clipper.leaves_out`."""
        return self.exclude_bias_bn and len(shape) <= 1

    def empty(self, ops: Ops, rows: int) -> tuple[()]:
        """See `Clipper.empty`: there is none."""
        return ()

    def seen(self, state: State) -> Array:
        """See `Clipper.seen`: every step counts."""
        return state.steps

    def estimate(
        self,
        ops: Ops,
        history: tuple[()],
        measured: Measured,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, tuple[()]]:
        """See `Clipper.estimate`."""
        return self.clipping * ops.maximum(measured.weight_norms, self.eps), ()

    def limits(self, threshold: Array, measured: Measured) -> dict[str, Array]:
        """See `Clipper.limits`."""
        return {"target": threshold, "weight_norm": measured.weight_norms}

    def factor(self, ops: Ops, threshold: Array, norms: Array) -> Array:
        """See `Clipper.factor`."""
        return threshold / ops.maximum(norms, LEAST_NORM)

    def columns(self, steps: int) -> Mapping[str, Column]:
        """See `Clipper.columns`: nothing but the steps is remembered."""
        return {}

    def describe(self, ops: Ops, state: State) -> dict[str, list[Any]]:
        """See `Clipper.describe`."""
        return {}

    def restore(self, ops: Ops, rows: int, columns: Mapping[str, list[Any]], steps: int) -> State:
        """See `Clipper.restore`."""
        threshold = ops.full((rows,), math.inf)
        return State(ops.from_host(np.array(steps)), threshold, ())
