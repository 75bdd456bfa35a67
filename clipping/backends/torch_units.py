"""L2 norms of the units of torch tensors: of each row or filter.

Small tensors whose units are of one length are packed into a matrix, so that the number of calls
hardly grows with that of the tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipping.backends.torch_norms import wide

Within: TypeAlias = tuple[int, ...] | None
"""The dimensions within a unit; None if all of a tensor is one."""

SMALL: Final = 1 << 15
"""How many elements a tensor may have to be packed with others."""
PACK: Final = 1 << 18
"""How many elements are packed at most."""


class Packing(NamedTuple):
    """In which calls the units of some tensors are measured.

    Attributes:
        runs: The indices of tensors that are packed, and the length of their units.
        alone: The indices of the others.
        order: Where the units of the tensors are among the results; None if in order.
        sizes: How many units each tensor has.
    """

    runs: list[tuple[list[int], int]]
    alone: list[int]
    order: NDArray[np.intp] | None
    sizes: list[int]


def packing(tensors: Sequence[Tensor], within: Sequence[Within]) -> Packing:
    """How to measure some tensors, and any others of the same shapes, dtypes and layouts."""
    alike: defaultdict[tuple[torch.dtype, int], list[int]] = defaultdict(list)
    alone = []
    sizes = [1 if dims is None else len(x) for x, dims in zip(tensors, within, strict=True)]
    for index, (x, size) in enumerate(zip(tensors, sizes, strict=True)):
        if x.is_sparse or not 0 < x.numel() <= SMALL:
            alone.append(index)
        else:
            alike[x.dtype, x.numel() // size].append(index)
    runs = [
        (run, length)
        for (_, length), indices in alike.items()
        for run in chunks(indices, [tensors[i].numel() for i in indices], PACK)
    ]
    measured = [index for run, _ in runs for index in run] + alone
    ends = np.cumsum(sizes)
    places = [np.arange(ends[i] - sizes[i], ends[i]) for i in measured]
    order = np.argsort(np.concatenate(places))
    in_order = bool((order == np.arange(len(order))).all())
    return Packing(runs, alone, None if in_order else order, sizes)


def unit_norms(
    tensors: Sequence[Tensor], within: Sequence[Within], packed: Packing
) -> list[Tensor]:
    """The norms of units, in several tensors of one dimension: in the order of the packing.

    Args:
        tensors: Of any dtypes; a sparse one must be coalesced.
        within: For each the dimensions within a unit.
        packed: See `packing`.
    """
    parts = []
    for run, length in packed.runs:
        matrix = torch._C._nn.flatten_dense_tensors([tensors[i] for i in run])  # noqa: SLF001 -- as DDP does
        matrix = matrix.view(-1, length)
        parts.append(torch.linalg.vector_norm(matrix, dim=1, dtype=wide(matrix.dtype)))
    for index in packed.alone:
        x, dims = tensors[index], within[index]
        if x.is_sparse:
            parts.append(_sparse_unit_norms(x, dims))
        else:
            norms = torch.linalg.vector_norm(x, dim=dims, dtype=wide(x.dtype))
            parts.append(norms.reshape(-1))
    return parts


def chunks(indices: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """Cut indices into runs that are not larger than some number of elements."""
    runs: list[list[int]] = []
    filled = most
    for index, size in zip(indices, sizes, strict=True):
        if filled + size > most:
            runs.append([])
            filled = 0
        runs[-1].append(index)
        filled += size
    return runs


def _sparse_unit_norms(x: Tensor, within: Within) -> Tensor:
    values: Tensor = x.values()
    if within is None:
        whole: Tensor = torch.linalg.vector_norm(values, dtype=wide(x.dtype))
        return whole.unsqueeze(0)
    matrix = values.reshape(values.shape[0], prod(values.shape[1:]))
    norms = torch.linalg.vector_norm(matrix, dim=1, dtype=wide(x.dtype))
    zeros: Tensor = torch.zeros(x.shape[0], dtype=norms.dtype, device=x.device)
    unit = x.indices()[0]
    if x.sparse_dim() == 1:
        zeros.index_put_((unit,), norms)
        return zeros
    zeros.index_put_((unit,), norms * norms, accumulate=True)
    return torch.sqrt(zeros)
