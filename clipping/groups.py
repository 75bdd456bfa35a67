"""Which gradients belong together, by the scope of a clipper.

- ``"global"``: one group of everything, ``("global",)``.
- ``"per_layer"``: one of each layer that owns parameters, ``("layer", "conv1")``; what no layer
  owns is ``("layer", "root")``.
- ``"per_param"``: one of each parameter, ``("param", "0")``, counted over the trainable ones.
- ``"per_unit"``: the same keys, but every unit (row, filter) of a parameter is scaled by itself.

Parameters that a clipper leaves out (see `Clipper.leaves_out`) are in no group: they are measured
and, if they are not finite, zeroed, but never scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipping.clipper import Clipper
from clipping.records import Array, Key, Ops

ROOT = "root"


class Leaf(NamedTuple):
    """One trainable parameter.

    Attributes:
        shape: Its shape.
        layer: The name of what owns it, "" for the model itself; None where nothing tells.
        units: How many units it has; see `clipping.units`.
    """

    shape: tuple[int, ...]
    layer: str | None
    units: int


@dataclass(frozen=True, eq=False)
class Groups:
    """How parameters are grouped into rows, each of which is scaled by one factor.

    Attributes:
        names: The keys of the groups, and after them of the parameters in no group.
        count: How many groups.
        rows: How many rows.
        owner: Which of ``names`` a row belongs to, of shape [rows].
        first: The first row of each parameter, of shape [parameters].
        unitwise: Whether a parameter has a row for each of its units, else one that it may share.
    """

    names: tuple[Key, ...]
    count: int
    rows: int
    owner: NDArray[np.intp]
    first: NDArray[np.intp]
    unitwise: bool

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the groups."""
        return self.names[: self.count]

    @cached_property
    def grouped(self) -> NDArray[np.bool_] | None:
        """Which rows belong to a group; None if all."""
        return None if len(self.names) == self.count else self.owner < self.count

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """For each group its first row and the one after its last."""
        starts = np.flatnonzero(np.r_[True, self.owner[1:] != self.owner[:-1]])
        ends = np.r_[starts[1:], self.rows]
        every = dict(zip(self.owner[starts].tolist(), zip(starts, ends, strict=True), strict=True))
        return [(int(start), int(end)) for start, end in map(every.__getitem__, range(self.count))]

    @cached_property
    def _rows_are_parameters(self) -> bool:
        return self.unitwise or np.array_equal(self.first, np.arange(self.rows))

    def combine(self, ops: Ops, norms: Array) -> Array:
        """From the norms of the parameters to those of the rows.

        Args:
            ops: The array operations.
            norms: Of shape [parameters]; with ``unitwise`` of shape [rows] already.
        """
        if self._rows_are_parameters:
            return norms
        if self.rows == 1:
            return ops.norm(norms)[None]
        return ops.segment_norms(norms, self.first, self.rows)

    def present(self, parameters: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Which rows have a gradient if some parameters have; None if all."""
        if parameters.all():
            return None
        if self.unitwise:
            sizes = np.diff(np.r_[self.first, self.rows])
            return np.repeat(parameters, sizes)
        return np.bincount(self.first[parameters], minlength=self.rows) > 0

    def named(self, rows: NDArray[np.bool_]) -> list[Key]:
        """The keys of some rows, each once."""
        return [self.names[index] for index in np.unique(self.owner[rows])]

    def split(self, values: Any) -> Any:
        """From a value of each row to one of each group; under ``unitwise`` an array of each."""
        if self.unitwise:
            return [values[start:end] for start, end in self.bounds]
        if self.count == self.rows:
            return values
        return [values[start] for start, _ in self.bounds]


def arrange(clipper: Clipper, leaves: Sequence[Leaf]) -> Groups:
    """Group parameters by a clipper's scope.

    Args:
        clipper: Whose scope, and which parameters it leaves out.
        leaves: The trainable parameters, each once, in the model's order.

    Raises:
        ValueError: The scope needs names of layers and there are none, or no parameter is left.
    """
    scope = clipper.scope
    out = np.array([clipper.leaves_out(leaf.shape) for leaf in leaves], bool)
    if out.all():
        raise ValueError(
            f"{type(clipper).__name__} leaves out all of the {len(leaves)} parameters, because "
            "none has more than one dimension. Allowed: at least one that is clipped; give "
            "exclude_bias_bn=False to clip biases too."
        )
    if scope == "global":
        own = np.zeros(len(leaves), np.intp)
        keys: list[Key] = [("global",)]
    elif scope == "per_layer":
        own, keys = _by_layer(leaves, out)
    else:
        own = np.cumsum(~out) - 1
        keys = [("param", str(i)) for i in np.flatnonzero(~out)]
    apart = [("param", str(i)) for i in np.flatnonzero(out)]
    owner = np.where(out, len(keys) + np.cumsum(out) - 1, own)
    names = (*keys, *apart)
    if scope in ("global", "per_layer"):
        return Groups(names, len(keys), len(names), np.arange(len(names)), owner, unitwise=False)
    unitwise = scope == "per_unit"
    sizes = np.array([leaf.units if unitwise else 1 for leaf in leaves], np.intp)
    first = np.cumsum(sizes) - sizes
    return Groups(
        names, len(keys), int(sizes.sum()), np.repeat(owner, sizes), first, unitwise=unitwise
    )


def _by_layer(leaves: Sequence[Leaf], out: NDArray[np.bool_]) -> tuple[Any, list[Key]]:
    if any(leaf.layer is None for leaf in leaves):
        raise ValueError(
            "scope='per_layer' needs the names of the layers, and bare gradients have none. "
            "Allowed here: 'global' and 'per_param'; or give the whole model to clipping.apply."
        )
    index: dict[str, int] = {}
    own = [
        0 if left_out else index.setdefault(leaf.layer or ROOT, len(index))
        for leaf, left_out in zip(leaves, out, strict=True)
    ]
    return np.array(own, np.intp), [("layer", name) for name in index]
