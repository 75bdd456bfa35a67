"""Penalties that are sums over the leaves of a tree, and their gradients."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Final, Literal, TypeAlias

from regularizers.backends import backend_for
from regularizers.operations import Array, Operations, Shape
from regularizers.penalties.leaves import check_real
from regularizers.protocols import Scalar
from regularizers.trees import Tree, flatten, refill

Reduction: TypeAlias = Literal["sum", "mean"]
"""Over what a penalty counts: ``"sum"`` adds up, ``"mean"`` divides by the number."""

REDUCTIONS: Final = ("sum", "mean")

Measure: TypeAlias = Callable[..., Array]
"""``(operations, leaf, ...) -> array``: the sum over one leaf, or the gradient by it. It is given
the leaves at the same place of each tree."""

Count: TypeAlias = Callable[[Shape], Any]
"""How many a leaf of this shape counts for, in a mean."""


def total(
    penalty: str, measure: Measure, count: Count, reduction: Reduction, *trees: Tree
) -> Scalar:
    """The sum of ``measure`` over all leaves, divided by the count of the first tree in a mean.

    The first tree says which framework computes it.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers.
        ValueError: The reduction does not exist.
    """
    check_reduction(reduction)
    xp, rows = _rows(penalty, trees)
    sums = [measure(xp, *row) for row in rows]
    if not sums:
        return 0.0
    value = reduce(operator.add, xp.promote(sums))
    return value if reduction == "sum" else xp.divide(value, _count(xp, rows, count))


def gradient(
    penalty: str, slope: Measure, count: Count, reduction: Reduction, *trees: Tree
) -> Tree:
    """``slope`` at each leaf, divided by the count in a mean; a tree like the first.

    Raises:
        TypeError: As `total`.
        ValueError: As `total`.
    """
    check_reduction(reduction)
    xp, rows = _rows(penalty, trees)
    slopes = [slope(xp, *row) for row in rows]
    if reduction == "mean":
        number = _count(xp, rows, count)
        slopes = [xp.divide(array, number) for array in slopes]
    return refill(trees[0], slopes)


def check_reduction(reduction: str) -> None:
    """Raise ValueError for one that does not exist."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS!r}, got {reduction!r}.")


def _rows(penalty: str, trees: Sequence[Tree]) -> tuple[Operations, list[Sequence[Array]]]:
    leaves = [list(flatten(tree).values()) for tree in trees]
    backend = backend_for(leaves[0])
    for column in leaves:
        check_real(penalty, column)
    rows = zip(*leaves, strict=True)
    xp: Operations = backend.xp
    return xp, [xp.promote([backend.as_float(leaf) for leaf in row]) for row in rows]


def _count(xp: Operations, rows: list[Sequence[Array]], count: Count) -> Any:
    return sum(count(xp.shape(row[0])) for row in rows)
