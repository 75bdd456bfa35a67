"""Penalties on how far two views of the same thing are apart."""

from __future__ import annotations

import math
from typing import Any

from regularizers.operations import Array, Operations
from regularizers.penalties.penalty import with_grad
from regularizers.penalties.references import Reference, find_reference
from regularizers.penalties.sums import Reduction, gradient, total
from regularizers.protocols import Scalar
from regularizers.trees import Tree


def _consistency_grad(
    data: Any, logprobs: Tree, *, reference: Reference = None, reduction: Reduction = "sum"
) -> Tree:
    found = find_reference("consistency", data, reference, logprobs)

    def slope(_: Operations, x: Array, other: Array) -> Array:
        return 2 * (x - other)

    return gradient("consistency", slope, math.prod, reduction, logprobs, found)


@with_grad(_consistency_grad)
def consistency(
    data: Any, logprobs: Tree, *, reference: Reference = None, reduction: Reduction = "sum"
) -> Scalar:
    """The squared difference from another view's values ``r`` in ``data``, ``sum((x - r)**2)``.

    The other view is what the same model says of a perturbed input, or what a teacher says of the
    same one; they are to agree. With ``reduction="mean"`` it is the mean squared error.

    The gradient is ``2 * (x - r)``.

    Args:
        data: Where the other view is: values of the same shape as ``logprobs``, taken as they are.
            A gradient flows into them too if they have one: detach them where it must not, as for
            a teacher's.
        logprobs: A tensor of any shape, or a tree of them.
        reference: Where in ``data``: a key, a function of ``data``, or None for ``data`` itself.
        reduction: ``"sum"``, or ``"mean"`` over all elements.

    Returns:
        A scalar on the tensors' device, at least 0; NaN if an element is, or if both views are the
        same infinity.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers; or the reference is of
            another framework than ``logprobs``, and not of numpy.
        ValueError: The reduction does not exist, ``data`` has no such key, or the reference has
            another shape.

    Example:
        >>> import numpy as np
        >>> float(consistency(np.array([1.0, 2.0]), np.array([1.0, 5.0])))
        9.0

    References:
        Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017, arXiv:1610.02242.
        Tarvainen and Valpola, "Mean Teachers are Better Role Models", 2017, arXiv:1703.01780.
    """

    def measure(xp: Operations, x: Array, other: Array) -> Array:
        difference = x - other
        return xp.sum(difference * difference)

    found = find_reference("consistency", data, reference, logprobs)
    return total("consistency", measure, math.prod, reduction, logprobs, found)
