"""Penalties on the size of what is handed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from regularizers.checks import as_float, describe
from regularizers.operations import Array, Operations
from regularizers.penalties.penalty import with_grad
from regularizers.penalties.sums import Reduction, gradient, total
from regularizers.protocols import Scalar
from regularizers.trees import Tree


def _l1_grad(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Tree:
    del data
    return gradient("l1", lambda xp, x: xp.sign(x), math.prod, reduction, logprobs)


@with_grad(_l1_grad)
def l1(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Scalar:
    """The sum of absolute values, ``sum(|x|)``, which favours zeros.

    The gradient is ``sign(x)``; at zero, where there is none, it is 0. At NaN it is NaN, except
    where torch's autograd finds it: there it is 0. The value is NaN everywhere.

    Args:
        data: Not used.
        logprobs: A tensor of any shape, or a tree of them.
        reduction: ``"sum"``, or ``"mean"`` over all elements.

    Returns:
        A scalar on the tensors' device, at least 0; infinite or NaN if an element is.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers.
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
    return total("l1", lambda xp, x: xp.sum(xp.abs(x)), math.prod, reduction, logprobs)


def _l2_grad(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Tree:
    del data
    return gradient("l2", lambda _, x: 2 * x, math.prod, reduction, logprobs)


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
        TypeError: A leaf is no tensor or number, or of complex numbers.
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
    return total("l2", lambda xp, x: xp.sum(x * x), math.prod, reduction, logprobs)


def _elastic_net_grad(
    data: Any, logprobs: Tree, *, l1_ratio: float = 0.5, reduction: Reduction = "sum"
) -> Tree:
    del data
    ratio = _check_ratio(l1_ratio)

    def slope(xp: Operations, x: Array) -> Array:
        return _blend(ratio, lambda: xp.sign(x), lambda: x)

    return gradient("elastic_net", slope, math.prod, reduction, logprobs)


@with_grad(_elastic_net_grad)
def elastic_net(
    data: Any, logprobs: Tree, *, l1_ratio: float = 0.5, reduction: Reduction = "sum"
) -> Scalar:
    """A blend of both, ``l1_ratio * sum(|x|) + (1 - l1_ratio) / 2 * sum(x**2)``.

    It favours zeros like `l1`, and keeps values that go together alike. This is the penalty of
    scikit-learn's ``ElasticNet`` and of glmnet, with the weight as its ``alpha`` (glmnet's lambda):
    half of the squares, where `l2` counts them whole. Zou and Hastie's own has no half, and its
    mixing parameter is ``1 - l1_ratio``.

    The gradient is ``l1_ratio * sign(x) + (1 - l1_ratio) * x``, with ``sign`` as in `l1`.

    Args:
        data: Not used.
        logprobs: A tensor of any shape, or a tree of them.
        l1_ratio: The share of the absolute values, from 0 to 1.
        reduction: ``"sum"``, or ``"mean"`` over all elements.

    Returns:
        A scalar on the tensors' device, at least 0; infinite or NaN if an element is.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers; or ``l1_ratio`` is no
            number.
        ValueError: ``l1_ratio`` is not from 0 to 1, or the reduction does not exist.

    Example:
        >>> import numpy as np
        >>> float(elastic_net(None, np.array([1.0, -2.0, 0.0]), l1_ratio=0.2))  # 0.2 * 3 + 0.4 * 5
        2.6

    References:
        Zou and Hastie, "Regularization and Variable Selection via the Elastic Net", J. R. Stat.
        Soc. B 67 (2005), 301-320.
        Friedman, Hastie and Tibshirani, "Regularization Paths for Generalized Linear Models via
        Coordinate Descent", J. Stat. Softw. 33 (2010), 1-22 (this form of it).
    """
    del data
    ratio = _check_ratio(l1_ratio)

    def measure(xp: Operations, x: Array) -> Array:
        return _blend(ratio, lambda: xp.sum(xp.abs(x)), lambda: xp.sum(x * x) / 2)

    return total("elastic_net", measure, math.prod, reduction, logprobs)


def _blend(ratio: float, first: Callable[[], Array], second: Callable[[], Array]) -> Array:
    if ratio == 0:  # 0 * infinity would be NaN
        return second()
    if ratio == 1:
        return first()
    return ratio * first() + (1.0 - ratio) * second()


def _check_ratio(l1_ratio: object) -> float:
    if isinstance(l1_ratio, bool) or not isinstance(l1_ratio, Real):
        raise TypeError(
            f"elastic_net got l1_ratio={describe(l1_ratio)}. It takes a number from 0 to 1."
        )
    # Another type of number could make the tensors float64, or not be multiplied with them.
    ratio = as_float(l1_ratio)
    if not 0 <= ratio <= 1:
        raise ValueError(f"elastic_net got l1_ratio={l1_ratio!r}. It takes a number from 0 to 1.")
    return ratio
