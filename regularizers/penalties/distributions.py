"""Penalties on log-probabilities as distributions."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias

from regularizers.operations import Array, Operations, Shape
from regularizers.penalties.leaves import check_distributions
from regularizers.penalties.penalty import with_grad
from regularizers.penalties.references import Reference, find_reference
from regularizers.penalties.sums import Reduction, gradient, total
from regularizers.protocols import Scalar
from regularizers.trees import Tree

Mode: TypeAlias = Literal["penalty", "bonus"]
"""``"penalty"`` is the entropy itself, ``"bonus"`` its negative."""

SIGNS: Final[dict[str, float]] = {"penalty": 1.0, "bonus": -1.0}

Direction: TypeAlias = Literal["reverse", "forward"]
"""Which of the two distributions the divergence is averaged under: ours, or the reference."""

DIRECTIONS: Final = ("reverse", "forward")

IMPOSSIBLE: Final = -1000.0
"""A log-probability below which the probability is 0 in float64 too."""


def _entropy_grad(
    data: Any, logprobs: Tree, *, mode: Mode = "penalty", reduction: Reduction = "sum"
) -> Tree:
    del data
    sign = _sign(mode)
    check_distributions("entropy", logprobs)

    def slope(xp: Operations, x: Array) -> Array:
        return -sign * xp.exp(x) * (xp.at_least(x, IMPOSSIBLE) + 1.0)

    return gradient("entropy", slope, _rows, reduction, logprobs)


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
        TypeError: A leaf is no tensor or number, or of complex numbers.
        ValueError: A leaf has no axes, or the mode or the reduction does not exist.

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
    check_distributions("entropy", logprobs)

    def measure(xp: Operations, x: Array) -> Array:
        # exp(-inf) * -inf would be NaN. Less than 0.0, because the negative of 0.0 is -0.0.
        return 0.0 - sign * xp.sum(xp.exp(x) * xp.at_least(x, IMPOSSIBLE))

    return total("entropy", measure, _rows, reduction, logprobs)


def _kl_divergence_grad(
    data: Any,
    logprobs: Tree,
    *,
    reference: Reference = None,
    direction: Direction = "reverse",
    reduction: Reduction = "sum",
) -> Tree:
    _check_direction(direction)
    check_distributions("kl_divergence", logprobs)

    def slope(xp: Operations, x: Array, other: Array) -> Array:
        if direction == "forward":
            return -xp.exp(other)
        p = xp.exp(x)
        return p * (xp.difference(x, other, p) + 1.0)

    found = find_reference("kl_divergence", data, reference, logprobs)
    return gradient("kl_divergence", slope, _rows, reduction, logprobs, found)


@with_grad(_kl_divergence_grad)
def kl_divergence(
    data: Any,
    logprobs: Tree,
    *,
    reference: Reference = None,
    direction: Direction = "reverse",
    reduction: Reduction = "sum",
) -> Scalar:
    """The Kullback-Leibler divergence in nats from reference log-probabilities ``r`` in ``data``.

    ``direction="reverse"`` is ``KL(exp(x) || exp(r)) = sum(exp(x) * (x - r))`` over the last axis,
    which keeps a policy where the reference is likely (the penalty of fine-tuning from feedback).
    Its gradient is ``exp(x) * (x - r + 1)``. ``"forward"`` is ``KL(exp(r) || exp(x)) =
    sum(exp(r) * (r - x))``, which keeps likely whatever the reference finds likely (distillation).
    Its gradient is ``-exp(r)``. Both by the log-probabilities themselves.

    An outcome whose probability is 0 under the first of the two counts 0, in value and gradient,
    whatever the second says of it. One that only the second finds impossible makes the divergence
    ``inf``.

    Args:
        data: Where the reference is: log-probabilities of the same shape as ``logprobs``. A
            gradient flows into them too if they have one: detach them where it must not.
        logprobs: Log-probabilities, normalized over the last axis: a tensor of shape (..., n), or
            a tree of them. Neither these nor the reference are normalized here.
        reference: Where in ``data``: a key, a function of ``data``, or None for ``data`` itself.
        direction: ``"reverse"`` or ``"forward"``.
        reduction: ``"sum"`` over all distributions, or ``"mean"`` over them.

    Returns:
        A scalar on the tensors' device, at least 0 for distributions; NaN if an element that
        counts is NaN.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers; or the reference is of
            another framework than ``logprobs``, and not of numpy.
        ValueError: A leaf has no axes, the direction or the reduction does not exist, ``data`` has
            no such key, or the reference has another shape.

    Example:
        >>> import numpy as np
        >>> from functools import partial
        >>> data = {"reference": np.log([0.5, 0.5])}
        >>> kl = partial(kl_divergence, reference="reference")
        >>> round(float(kl(data, np.log([0.75, 0.25]))), 6)  # 0.75 log(1.5) - 0.25 log(2)
        0.130812

    References:
        Kullback and Leibler, "On Information and Sufficiency", Ann. Math. Stat. 22 (1951), 79-86.
        Ziegler et al., "Fine-Tuning Language Models from Human Preferences", 2019,
        arXiv:1909.08593 (reverse).
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv:1503.02531 (forward).
    """
    _check_direction(direction)
    check_distributions("kl_divergence", logprobs)

    def measure(xp: Operations, x: Array, other: Array) -> Array:
        first, second = (x, other) if direction == "reverse" else (other, x)
        p = xp.exp(first)
        return xp.sum(p * xp.difference(first, second, p))

    found = find_reference("kl_divergence", data, reference, logprobs)
    return total("kl_divergence", measure, _rows, reduction, logprobs, found)


def _sign(mode: str) -> float:
    if mode not in tuple(SIGNS):  # of a dict, what cannot be hashed is a TypeError
        raise ValueError(f"mode must be one of {tuple(SIGNS)!r}, got {mode!r}.")
    return SIGNS[mode]


def _check_direction(direction: str) -> None:
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {DIRECTIONS!r}, got {direction!r}.")


def _rows(shape: Shape) -> Any:
    return math.prod(shape[:-1])
