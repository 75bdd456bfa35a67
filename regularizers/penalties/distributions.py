"""Penalties on log-probabilities as distributions."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias

from regularizers.penalties.penalty import Reduction, gradient, total, with_grad
from regularizers.records import Scalar
from regularizers.trees import Tree

Mode: TypeAlias = Literal["penalty", "bonus"]
"""``"penalty"`` is the entropy itself, ``"bonus"`` its negative."""

SIGNS: Final[dict[str, float]] = {"penalty": 1.0, "bonus": -1.0}


def _entropy_grad(
    data: Any, logprobs: Tree, *, mode: Mode = "penalty", reduction: Reduction = "sum"
) -> Tree:
    del data
    sign = _sign(mode)

    def slope(xp: Any, x: Any) -> Any:
        finite, p = _probabilities(xp, x)
        return -sign * p * (finite + 1.0)

    return gradient(logprobs, slope, _rows, reduction)


@with_grad(_entropy_grad)
def entropy(
    data: Any, logprobs: Tree, *, mode: Mode = "penalty", reduction: Reduction = "sum"
) -> Scalar:
    """The Shannon entropy in nats, ``-sum(exp(x) * x)`` over the last axis.

    Added to a loss it favours confident distributions. ``mode="bonus"`` is its negative, the
    confidence penalty that keeps a policy exploring (weights are never negative).

    The gradient is ``-exp(x) * (x + 1)``, by the log-probabilities themselves. An impossible
    outcome (a log-probability of ``-inf``) counts 0, in value and gradient.

    Args:
        data: Not used.
        logprobs: Log-probabilities, normalized over the last axis: a tensor of shape (..., n), or
            a tree of them. They are not normalized here.
        mode: ``"penalty"`` for the entropy, ``"bonus"`` for its negative.
        reduction: ``"sum"`` over all distributions, or ``"mean"`` over them.

    Returns:
        A scalar on the tensors' device; NaN if an element is NaN, ``-inf`` (as a penalty) if one is
        ``inf``, which no probability has.

    Raises:
        TypeError: A leaf is no tensor or number.
        ValueError: The mode or the reduction does not exist.

    Example:
        >>> import numpy as np
        >>> fair_coin = np.log([0.5, 0.5])
        >>> round(float(entropy(None, fair_coin)), 6)  # log(2)
        0.693147

    References:
        Shannon, "A Mathematical Theory of Communication", Bell Syst. Tech. J. 27 (1948), 379-423.
        Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output
        Distributions", 2017, arXiv:1701.06548 (the bonus).
    """
    del data
    sign = _sign(mode)

    def term(xp: Any, x: Any) -> Any:
        finite, p = _probabilities(xp, x)
        return -sign * p * finite

    return total(logprobs, term, _rows, reduction)


def _sign(mode: str) -> float:
    if mode not in SIGNS:
        raise ValueError(f"mode must be one of {tuple(SIGNS)!r}, got {mode!r}.")
    return SIGNS[mode]


def _probabilities(xp: Any, x: Any) -> tuple[Any, Any]:
    # exp(-inf) * -inf would be NaN; the first where keeps it out of autograd's backward pass too.
    possible = x != -math.inf
    finite = xp.where(possible, x, 0.0)
    return finite, xp.where(possible, xp.exp(finite), 0.0)


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
