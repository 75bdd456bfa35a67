"""Scaling of gradients that the CPU can read: only what changes is written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipping.records import Decision

if TYPE_CHECKING:
    from clipping.backends.torch_gradients import Kinds

DOUBLE: Final = (torch.float64, torch.complex128)


def rescale_whole(
    tensors: list[Tensor],
    kinds: Kinds,
    rows: NDArray[np.intp],
    decision: Decision,
) -> None:
    """Scale or zero tensors, each of which is in one row.

    Args:
        tensors: The gradients.
        kinds: What occurs among them.
        rows: The row of each.
        decision: Of all rows, in NumPy arrays.
    """
    tensors = [_stored(x) for x in tensors] if kinds.sparse else tensors
    if len(decision.scale) == 1:
        if decision.zeroed[0]:
            torch._foreach_zero_(tensors)
        elif decision.scale[0] != 1:
            _multiply(tensors, kinds.dtypes, decision.scale)
        return
    zeroed = decision.zeroed[rows]
    if zeroed.any():
        torch._foreach_zero_(list(compress(tensors, zeroed)))
    scale = decision.scale[rows]
    changed = (scale != 1) & ~zeroed
    if not changed.all():
        tensors, scale = list(compress(tensors, changed)), scale[changed]
    if tensors:
        _multiply(tensors, kinds.dtypes, scale)


def _multiply(
    tensors: list[Tensor], dtypes: Collection[torch.dtype], scale: NDArray[np.float64]
) -> None:
    """Multiply by a factor each, or by the only one."""
    for dtype in dtypes:
        alike, factors = tensors, scale
        if len(dtypes) > 1:
            of_this = [x.dtype == dtype for x in tensors]
            alike = list(compress(tensors, of_this))
            factors = scale if len(scale) == 1 else scale[of_this]
        if not alike:
            continue
        # Tensors: as numbers they would be rounded to the precision of the gradients first.
        made = torch.from_numpy(factors).to(_precision(dtype))
        if len(factors) == 1:
            torch._foreach_mul_(alike, made[0])
        else:
            torch._foreach_mul_(alike, made.unbind())


def rescale_units(
    tensors: list[Tensor],
    axes: Sequence[int],
    starts: NDArray[np.intp],
    ends: NDArray[np.intp],
    decision: Decision,
) -> None:
    """Scale or zero the units of tensors.

    Args:
        tensors: The gradients.
        axes: For each its number of dimensions; at most 1 if it is a single unit.
        starts: For each the row of its first unit.
        ends: For each the row after that of its last unit.
        decision: Of all rows, in NumPy arrays.
    """
    scaled = _any(decision.scale != 1, starts, ends)
    if not scaled.any():
        return
    if decision.zeroed.all():
        torch._foreach_zero_([_stored(x) for x in tensors])
        return
    for index in _any(decision.zeroed, starts, ends).nonzero()[0].tolist():
        rows = slice(starts[index], ends[index])
        _zero_units(tensors[index], axes[index], decision.zeroed[rows])
    columns = _Columns(np.where(decision.zeroed, 1.0, decision.scale), starts, ends)
    touched = scaled.nonzero()[0].tolist()
    torch._foreach_mul_(
        [_stored(tensors[i]) for i in touched],
        [columns.of(i, tensors[i], axes[i]) for i in touched],
    )


class _Columns:
    """A factor for each unit of a tensor, in shapes that broadcast.

    Args:
        factors: Of all rows.
        starts: See `rescale_units`.
        ends: See `rescale_units`.
    """

    def __init__(
        self, factors: NDArray[np.float64], starts: NDArray[np.intp], ends: NDArray[np.intp]
    ) -> None:
        self._factors = torch.from_numpy(factors)
        self._sizes = (ends - starts).tolist()
        self._starts = starts.tolist()
        self._all_here = sum(self._sizes) == len(factors)
        self._cut: dict[tuple[torch.dtype, int], Sequence[Tensor]] = {}

    def of(self, index: int, x: Tensor, axes: int) -> Tensor:
        """The factors of one tensor."""
        if x.is_sparse and axes > 1:
            column = self._columns(x.dtype, x._values().dim())[index]  # noqa: SLF001 -- may be uncoalesced
            return column[x._indices()[0]]  # noqa: SLF001 -- indices() refuses what is not coalesced
        return self._columns(x.dtype, axes)[index]

    def _columns(self, dtype: torch.dtype, axes: int) -> Sequence[Tensor]:
        try:
            return self._cut[dtype, axes]
        except KeyError:
            self._cut[dtype, axes] = columns = self._cut_up(_precision(dtype), axes)
            return columns

    def _cut_up(self, dtype: torch.dtype, axes: int) -> Sequence[Tensor]:
        factors = self._factors.to(dtype)
        if axes == 0:
            return [factors[start] for start in self._starts]
        factors = factors.view(-1, *[1] * (axes - 1))
        if self._all_here:
            columns: Sequence[Tensor] = torch.split(factors, self._sizes)
            return columns
        pairs = zip(self._starts, self._sizes, strict=True)
        return [factors.narrow(0, start, size) for start, size in pairs]


def _any(
    flags: NDArray[np.bool_], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """For each range of rows whether any is flagged."""
    so_far = np.concatenate([[0], flags.cumsum()])
    result: NDArray[np.bool_] = so_far[ends] > so_far[starts]
    return result


def _zero_units(x: Tensor, axes: int, zeroed: NDArray[np.bool_]) -> None:
    if axes <= 1:
        _stored(x).zero_()
        return
    mask = torch.from_numpy(zeroed)
    if x.is_sparse:
        mask = mask[x._indices()[0]]  # noqa: SLF001 -- may be uncoalesced
    _stored(x)[mask] = 0


def _stored(x: Tensor) -> Tensor:
    """What the elements of a tensor lie in: scaling the summands of a sparse one scales it."""
    return x._values() if x.is_sparse else x  # noqa: SLF001 -- may be uncoalesced


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in DOUBLE else torch.float32
