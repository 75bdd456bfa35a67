"""How distributed tensors lie on the ranks, and sums over the ranks that share them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Placement

from clipping.backends.torch_ops import TorchOps
from clipping.units import count, first_axis

CPU: Final = "cpu"
MOST_SENT_AT_ONCE: Final = 255


class _Sharing(NamedTuple):
    """Ranks among which tensors are sharded.

    Attributes:
        mesh: A mesh that they are on.
        dim: Along which of its dimensions they are.
        tensors: Which tensors, of shape [tensors].
    """

    mesh: DeviceMesh
    dim: int
    tensors: NDArray[np.bool_]


class _Part(NamedTuple):
    """What a rank holds of a tensor.

    Attributes:
        shape: Of the whole tensor.
        length: Of the first axis of what is here.
        cuts: How the first axis is cut, one after the other: into how many strides, into how many
            pieces each, and which of these is here.
    """

    shape: torch.Size
    length: int
    cuts: list[tuple[int, int, int]]


class Layout:
    """The placements of some tensors, as this rank sees them.

    Args:
        tensors: Distributed (none of them with a sum due) or plain.

    Raises:
        ValueError: See `clipping.backends.torch_sharded.Shards`.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._parts = [_part(tensor) for tensor in tensors]
        self._units = np.array([count(p.shape, first_axis(p.shape)) for p in self._parts], np.intp)
        self._sharing = _sharing(tensors)
        self._positions: dict[torch.device, Tensor] = {}
        self._members: dict[tuple[torch.device, bool], list[Tensor]] = {}
        described = repr([(x.shape, getattr(x, "placements", None)) for x in tensors])
        self._fingerprint = zlib.crc32(described.encode())

    @cached_property
    def held(self) -> list[slice | None]:
        """For each tensor the units of which this rank holds something; None if all.

        Raises:
            ValueError: They do not follow each other.
        """
        return [_held(part) for part in self._parts]

    def spread(self, norms: Tensor) -> Tensor:
        """From the norms of the units that are here to those of all, 0 for the others."""
        if all(rows is None for rows in self.held):
            return norms
        device = norms.device
        if device not in self._positions:
            rows = np.split(np.arange(self._units.sum()), np.cumsum(self._units)[:-1])
            spans = zip(rows, self.held, strict=True)
            here = np.concatenate([all_ if some is None else all_[some] for all_, some in spans])
            self._positions[device] = TorchOps(device).from_host(here)
        every = norms.new_zeros(int(self._units.sum()))
        return every.index_copy_(0, self._positions[device], norms)

    def whole(self, norms: Tensor, *, unitwise: bool) -> Tensor:
        """From the norms of what is here to those of the whole.

        Args:
            norms: Of shape [tensors], or of all units.
            unitwise: Which of them.
        """
        if not self._sharing:
            return norms
        sharded, *members = self._on(norms.device, unitwise=unitwise)
        squares = norms * norms
        for sharing, index in zip(self._sharing, members, strict=True):
            among = sharing.mesh.get_group(sharing.dim)
            some = self._summed(squares.index_select(0, index), among)
            squares.index_copy_(0, index, some)
        return torch.where(sharded, squares.sqrt(), norms)

    def _on(self, device: torch.device, *, unitwise: bool) -> list[Tensor]:
        """Which norms are not known here already, and the positions of those of each group."""
        key = (device, unitwise)
        if key not in self._members:
            flags = [sharing.tensors for sharing in self._sharing]
            if unitwise:
                flags = [np.repeat(some, self._units) for some in flags]
            place = TorchOps(device).from_host
            sharded = place(np.logical_or.reduce(flags))
            self._members[key] = [sharded, *(place(np.flatnonzero(some)) for some in flags)]
        return self._members[key]

    def _summed(self, squares: Tensor, among: dist.ProcessGroup) -> Tensor:
        if squares.device.type != CPU:
            dist.all_reduce(squares, group=among)
            return squares
        # Where reading is free the ranks also compare what they sum. The message that compares has
        # one length on all ranks: gloo kills processes that send messages of different lengths.
        first, rest = squares[:MOST_SENT_AT_ONCE], squares[MOST_SENT_AT_ONCE:].double()
        fingerprint = zlib.crc32(str(len(squares)).encode(), self._fingerprint)
        sent = torch.zeros(1 + MOST_SENT_AT_ONCE, dtype=torch.float64)
        sent[0] = fingerprint
        sent[1 : 1 + len(first)] = first
        dist.all_reduce(sent, group=among)
        if sent[0].item() != fingerprint * among.size():
            raise RuntimeError(
                f"The ranks have gradients for different parameters (this one has "
                f"{len(self._parts)}), so norms cannot be added up. Every rank must clip the "
                "same parameters in the same order: give those without a gradient zeros. "
                "The gradients are untouched."
            )
        if len(rest):
            dist.all_reduce(rest, group=among)
        return torch.cat([sent[1 : 1 + len(first)], rest]).to(squares.dtype)


def _sharing(tensors: Sequence[Tensor]) -> list[_Sharing]:
    """One for each process group, in an order that is the same on every rank."""
    groups: dict[str, _Sharing] = {}
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, DTensor):
            continue
        mesh = tensor.device_mesh
        for dim, placement in enumerate(tensor.placements):
            if placement.is_replicate() or mesh.size(dim) == 1:
                continue
            group = mesh.get_group(dim)
            if group.group_name not in groups:
                _check_reach(group, tensor)
                groups[group.group_name] = _Sharing(mesh, dim, np.zeros(len(tensors), bool))
            groups[group.group_name].tensors[index] = True
    return list(groups.values())


def _part(tensor: Tensor) -> _Part:
    if not isinstance(tensor, DTensor):
        return _Part(tensor.shape, len(tensor) if tensor.dim() else 0, [])
    mesh, spec, local = tensor.device_mesh, tensor._spec, tensor._local_tensor  # noqa: SLF001 -- DTensor names no spec
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(
            f"Cannot clip a gradient of shape {tuple(tensor.shape)} on {mesh}, of which rank "
            f"{dist.get_rank()} is no part: its norm is not known here. Clip the parameters of "
            "each mesh by themselves, on its ranks, with clipping.torch.apply_grads and a clipper "
            "of their own. The gradients are untouched."
        )
    order = range(mesh.ndim)
    for entry in getattr(spec, "shard_order", None) or ():
        if entry.tensor_dim == 0:
            order = entry.mesh_dims
    cuts = [
        (getattr(placement, "split_factor", 1), mesh.size(dim), coordinate[dim])
        for dim in order
        if _cuts_units(placement := tensor.placements[dim])
    ]
    return _Part(tensor.shape, len(local) if local.dim() else 0, cuts)


def _cuts_units(placement: Placement) -> bool:
    return not placement.is_replicate() and getattr(placement, "dim", None) == 0


def _held(part: _Part) -> slice | None:
    if not part.cuts or len(part.shape) == len(first_axis(part.shape)):
        return None
    pieces, here = zip(*((cut[:2], cut[2]) for cut in part.cuts), strict=True)
    spans, scattered = _spans(part.shape[0], pieces)
    start, length = spans[int(np.ravel_multi_index(here, [n for _, n in pieces]))]
    if scattered is None and length == part.length:
        return slice(start, start + length)
    found = (
        f"the placements give one rank {list(scattered)}"
        if scattered is not None
        else f"rank {dist.get_rank()} holds {part.length}, where the placements say {length}"
    )
    raise ValueError(
        "scope='per_unit' needs the units of every rank to follow each other, but of the units of "
        f"a gradient of shape {tuple(part.shape)} {found}. Allowed: Shard, Replicate, and what "
        "fully_shard makes of them; or another scope. The gradients are untouched."
    )


@lru_cache(maxsize=64)
def _spans(
    length: int, cuts: tuple[tuple[int, int], ...]
) -> tuple[list[tuple[int, int]], tuple[int, ...] | None]:
    """How an axis is cut, on all ranks, so that every rank finds the same fault.

    Args:
        length: Of the axis.
        cuts: One after the other: into how many strides, into how many pieces each.

    Returns:
        For each coordinate on the mesh, the last one running fastest, where its rows start and
        how many they are; and the first rows that do not follow each other, or None.
    """
    parts = [np.arange(length)]
    for strides, pieces in cuts:
        parts = list(chain.from_iterable(_cut(rows, strides, pieces) for rows in parts))
    spans = [(int(rows[0]) if len(rows) else 0, len(rows)) for rows in parts]
    scattered = next((tuple(rows.tolist()) for rows in parts if (np.diff(rows) != 1).any()), None)
    return spans, scattered


def _cut(rows: NDArray[np.intp], strides: int, pieces: int) -> list[NDArray[np.intp]]:
    """The rows of each coordinate: a piece of every stride."""
    cut = [_chunks(stride, pieces) for stride in _chunks(rows, strides)]
    of_each = [[chunks[i] for chunks in cut if i < len(chunks)] for i in range(pieces)]
    return [np.concatenate([rows[:0], *own]) for own in of_each]


def _chunks(rows: NDArray[np.intp], pieces: int) -> list[NDArray[np.intp]]:
    """As torch.chunk cuts: pieces of one length, the last ones shorter or missing."""
    length = max(-(-len(rows) // pieces), 1)
    return [rows[start : start + length] for start in range(0, len(rows), length)]


def _check_reach(group: dist.ProcessGroup, tensor: DTensor) -> None:
    config = dist.get_backend_config(group)
    devices = {backend.partition(":")[0] for backend in config.split(",")}
    on_cpu = tensor._local_tensor.device.type == CPU  # noqa: SLF001 -- as in _part
    if on_cpu and CPU not in devices:
        raise ValueError(
            f"Cannot clip gradients on the CPU that are sharded over a mesh with the backend "
            f"{config!r}, which reduces nothing there. Give one for the CPU too: "
            "torch.distributed.init_process_group('cpu:gloo,cuda:nccl'). The gradients are "
            "untouched."
        )
