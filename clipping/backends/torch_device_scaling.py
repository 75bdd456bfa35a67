"""Scaling of gradients on an accelerator, where neither factors nor anything else may be read.

Small tensors are packed into flat ones, so that the number of launches hardly grows with theirs;
a large one is scaled by itself. No factor turns NaN into 0: what is zeroed is multiplied by 0 as
integers, or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipping.backends.torch_norms import HALF
from clipping.backends.torch_ops import TorchOps
from clipping.backends.torch_units import chunks
from clipping.records import Decision

BITS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALL: Final = 1 << 16
"""How many elements a tensor may have to be packed with others."""
PACK: Final = 1 << 22
"""How many elements are packed at most."""
ZEROED: Final = -1.0
"""The factor that stands for zeros; real ones are in [0, 1]."""


class Part(NamedTuple):
    """A gradient and its rows.

    Attributes:
        numbers: Its elements as real floating-point numbers, to be written to.
        first: The row of its first unit.
        rows: How many rows, one after the other.
    """

    numbers: Tensor
    first: int
    rows: int


class _Pack(NamedTuple):
    rows: Tensor
    lengths: Tensor
    total: int


def rescale(
    ops: TorchOps,
    tensors: Sequence[Tensor],
    axes: Sequence[int] | None,
    spans: Sequence[tuple[int, int]],
    decision: Decision,
) -> None:
    """Scale or zero gradients.

    Args:
        ops: Keeps the tables of indices on the device.
        tensors: The gradients.
        axes: For each its number of dimensions, at most 1 if it is a single unit; None if all are.
        spans: For each its first row, and the one after its last.
        decision: Of all rows.
    """
    parts: list[Part] = []
    for index, (x, (start, end)) in enumerate(zip(tensors, spans, strict=True)):
        if x.is_sparse and axes is not None and axes[index] > 1:
            _rescale_sparse_units(x, start, decision)
        else:
            numbers = _real(x._values() if x.is_sparse else x)  # noqa: SLF001 -- may be uncoalesced
            parts.append(Part(numbers, start, end - start))
    for dtype in {part.numbers.dtype for part in parts}:
        alike = [part for part in parts if part.numbers.dtype == dtype and part.numbers.numel()]
        if len(decision.scale) == 1 and dtype not in HALF:
            _rescale_all([part.numbers for part in alike], decision)
        else:
            _rescale_apart(ops, alike, decision)


def _rescale_all(numbers: list[Tensor], decision: Decision) -> None:
    if numbers:
        dtype = numbers[0].dtype
        keep, factor = _bits(decision, dtype)[0], decision.scale[0].to(dtype)
        torch._foreach_mul_([x.view(keep.dtype) for x in numbers], keep)
        torch._foreach_mul_(numbers, factor)


def _rescale_apart(ops: TorchOps, parts: list[Part], decision: Decision) -> None:
    small = [i for i, part in enumerate(parts) if _fits(part.numbers)]
    packed = set(small)
    large = [part for i, part in enumerate(parts) if i not in packed]
    keep = _bits(decision, parts[0].numbers.dtype) if large else decision.zeroed
    for numbers, first, count in large:
        rows, shape = slice(first, first + count), (-1, *[1] * (numbers.dim() - 1))
        numbers.view(keep.dtype).mul_(keep[rows].view(shape))
        # A tensor of one dimension or more: others would be rounded to the gradient's precision.
        numbers.mul_(decision.scale[rows].view(shape))
    factors = torch.where(decision.zeroed, ops.full((), ZEROED), decision.scale)
    for some in chunks(small, [parts[i].numbers.numel() for i in small], PACK):
        _rescale_pack(ops, [parts[i] for i in some], factors)


def _rescale_pack(ops: TorchOps, parts: list[Part], factors: Tensor) -> None:
    tensors = [_in_order(part.numbers) for part in parts]
    signature = tuple((part.first, part.rows, part.numbers.numel()) for part in parts)
    pack: _Pack = ops.remembered(signature, lambda: _pack(ops, signature))
    flat = torch._C._nn.flatten_dense_tensors(tensors)  # noqa: SLF001 -- as DDP does
    spread = factors.index_select(0, pack.rows)
    spread = spread.repeat_interleave(pack.lengths, output_size=pack.total)
    scaled = torch.where(spread < 0, ops.full((), 0.0), flat * spread).to(flat.dtype)
    pieces = torch._C._nn.unflatten_dense_tensors(scaled, tensors)  # noqa: SLF001 -- as DDP does
    torch._foreach_copy_(tensors, pieces)


def _pack(ops: TorchOps, signature: Sequence[tuple[int, int, int]]) -> _Pack:
    first, count, numel = np.array(signature, np.int64).T
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(first, count, strict=True)])
    lengths = np.repeat(numel // count, count)
    return _Pack(ops.from_host(rows), ops.from_host(lengths), int(numel.sum()))


def _rescale_sparse_units(x: Tensor, first: int, decision: Decision) -> None:
    numbers, units = _real(x._values()), x._indices()[0] + first  # noqa: SLF001 -- may be uncoalesced
    shape = (-1, *[1] * (numbers.dim() - 1))
    bits = _bits(decision, numbers.dtype)
    numbers.view(bits.dtype).mul_(bits[units].view(shape))
    numbers.mul_(decision.scale[units].view(shape))


def _bits(decision: Decision, dtype: torch.dtype) -> Tensor:
    bits: Tensor = ~decision.zeroed
    return bits.to(BITS[dtype.itemsize])


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _fits(numbers: Tensor) -> bool:
    return numbers.numel() <= SMALL and _in_order(numbers).is_contiguous()


def _in_order(x: Tensor) -> Tensor:
    """A view with the elements as they lie in memory, the units first, where that is possible."""
    if x.is_contiguous() or x.dim() < 4:  # noqa: PLR2004 -- channels-last exists from there on
        return x
    return x.movedim(1, -1)
