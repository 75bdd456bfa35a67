"""Norms of distributed tensors (DTensor): FSDP2, tensor parallelism, and both at once.

A rank measures the parts that it holds, and the ranks that share a tensor add up their squares.
Every rank gets the same norms, so every rank decides the same and scales its own parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, Replicate

from clipping.backends.torch_layout import Layout

MOST_LAYOUTS: Final = 8

Norms = TypeVar("Norms", NDArray[np.float64], Tensor)

_layouts: deque[tuple[list[object], Layout]] = deque(maxlen=MOST_LAYOUTS)


class Shards:
    """What this rank holds of some tensors, at least one of which is distributed.

    Those that are not are taken to be the same on every rank.

    Args:
        tensors: Gradients or weights. One whose sum over ranks is still due (``Partial``) is
            summed first, in place: its value is the same afterwards.

    Raises:
        ValueError: One is on a mesh without this rank, or on the CPU while its mesh can only
            communicate between accelerators.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._layout = _known_layout(tensors) or _new_layout(tensors)
        self.locals = [_local(tensor) for tensor in tensors]

    def norms(self, parts: Norms) -> Norms:
        """The norms of the whole tensors, the same on every rank.

        Args:
            parts: Those of what this rank holds, of shape [tensors]; a NumPy array, or a tensor
                on the device of the parts, where nothing is waited for.

        Raises:
            RuntimeError: On the CPU: the ranks have gradients for different parameters.
        """
        if isinstance(parts, Tensor):
            return self._layout.whole(parts, unitwise=False)
        return self._layout.whole(torch.from_numpy(parts), unitwise=False).numpy()

    def unit_norms(self, parts: Sequence[Norms]) -> Norms:
        """The norms of all units of all tensors, one after the other, the same on every rank.

        Args:
            parts: For each tensor the norms of the units, as far as this rank holds them.

        Raises:
            ValueError: A tensor is sharded in such a way that the units of a rank do not follow
                each other.
            RuntimeError: On the CPU: the ranks have gradients for different parameters.
        """
        if isinstance(parts[0], Tensor):
            return self._layout.whole(self._layout.spread(torch.cat(list(parts))), unitwise=True)
        known = self._layout.spread(torch.from_numpy(np.concatenate(parts)))
        return self._layout.whole(known, unitwise=True).numpy()

    def local_rows(self, index: int) -> slice | None:
        """Which units of a tensor this rank holds, at least in part; None if all.

        Raises:
            ValueError: They do not follow each other.
        """
        return self._layout.held[index]


def shards_of(tensors: Sequence[Tensor]) -> Shards | None:
    """What this rank holds of some tensors; None if none of them is distributed.

    Raises:
        ValueError: See `Shards`.
    """
    return Shards(tensors) if any(isinstance(x, DTensor) for x in tensors) else None


def _known_layout(tensors: Sequence[Tensor]) -> Layout | None:
    """The layout of such tensors, if it was found out before: it seldom changes."""
    marks = list(map(_mark, tensors))
    return next((layout for known, layout in _layouts if known == marks), None)


def _new_layout(tensors: Sequence[Tensor]) -> Layout:
    due = [
        x for x in tensors if isinstance(x, DTensor) and any(p.is_partial() for p in x.placements)
    ]
    for tensor in due:
        _sum_partial(tensor)
    layout = _known_layout(tensors) if due else None
    if layout is None:
        layout = Layout(tensors)
        _layouts.append((list(map(_mark, tensors)), layout))
    return layout


def _mark(tensor: Tensor) -> object:
    """What a layout depends on. Meshes of other process groups compare equal, so their ids too."""
    if isinstance(tensor, DTensor):
        spec = tensor._spec  # noqa: SLF001 -- DTensor has no public name for it
        return spec, id(spec.mesh)
    return tensor.shape


@torch.no_grad()
def _sum_partial(tensor: DTensor) -> None:
    placements = [Replicate() if p.is_partial() else p for p in tensor.placements]
    summed = tensor.redistribute(placements=placements)
    # What torch itself does for an operation in place that changes the placements.
    tensor._local_tensor = _local(summed)  # noqa: SLF001 -- DTensor has no public name for it
    tensor._spec = summed._spec  # noqa: SLF001 -- DTensor has no public name for it


def _local(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        return tensor
    local = tensor._local_tensor  # noqa: SLF001 -- to_local() makes a view of every weight
    return local.wait() if isinstance(local, AsyncCollectiveTensor) else local
