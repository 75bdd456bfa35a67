"""Penalties on the size of what is handed over."""

from __future__ import annotations

import math
from typing import Any

from regularizers.penalties.penalty import Reduction, gradient, total, with_grad
from regularizers.records import Scalar
from regularizers.trees import Tree


def _l1_grad(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Tree:
    del data
    return gradient(logprobs, lambda xp, x: xp.sign(x), math.prod, reduction)


@with_grad(_l1_grad)
def l1(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Scalar:
    """The sum of absolute values, ``sum(|x|)``, which favours zeros.

    The gradient is ``sign(x)``; at zero, where there is none, it is 0.

    Args:
        data: Not used.
        logprobs: A tensor of any shape, or a tree of them.
        reduction: ``"sum"``, or ``"mean"`` over all elements.

    Returns:
        A scalar on the tensors' device, at least 0; infinite or NaN if an element is.

    Raises:
        TypeError: A leaf is no tensor or number.
        ValueError: The reduction is neither.

    Example:
        >>> import numpy as np
        >>> float(l1(None, np.array([1.0, -2.0, 0.0])))
        3.0

    References:
        Tibshirani, "Regression Shrinkage and Selection via the Lasso", J. R. Stat. Soc. B 58
        (1996), 267-288.
    """
    del data
    return total(logprobs, lambda xp, x: xp.abs(x), math.prod, reduction)


def _l2_grad(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Tree:
    del data
    return gradient(logprobs, lambda _, x: 2 * x, math.prod, reduction)


@with_grad(_l2_grad)
def l2(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Scalar:
    """The sum of squares, ``sum(x**2)``, which favours small values. No root, and no half.

    The gradient is ``2 * x``.

    Args:
        data: Not used.
        logprobs: A tensor of any shape, or a tree of them.
        reduction: ``"sum"``, or ``"mean"`` over all elements.

    Returns:
        A scalar on the tensors' device, at least 0; infinite or NaN if an element is.

    Raises:
        TypeError: A leaf is no tensor or number.
        ValueError: The reduction is neither.

    Example:
        >>> import numpy as np
        >>> float(l2(None, np.array([1.0, -2.0, 0.0]), reduction="mean"))
        1.6666666666666667

    References:
        Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems",
        Technometrics 12 (1970), 55-67.
    """
    del data
    return total(logprobs, lambda _, x: x * x, math.prod, reduction)
