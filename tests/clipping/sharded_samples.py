"""Arrays of all shapes in all placements, and their norms in NumPy."""

import math

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard


def samples(world):
    """Whole arrays, and what this rank holds of them."""
    line = init_device_mesh("cpu", (world,))
    random = np.random.default_rng(5)
    cases = [
        ((3, 5), line, [Shard(0)]),
        ((9, 4), line, [Shard(0)]),
        ((6, 7), line, [Shard(1)]),
        ((5,), line, [Shard(0)]),
        ((2,), line, [Shard(0)]),
        ((4, 4), line, [Replicate()]),
        ((0, 5), line, [Shard(0)]),
        ((), line, [Replicate()]),
        ((2, 3, 4), line, [Shard(2)]),
        ((1, 4), line, [Shard(0)]),
        ((4, 3), None, None),
        ((5,), None, None),
        ((6, 2), line, [Partial()]),
        ((6, 2), line, [Partial("avg")]),
    ]
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        cases += [
            ((8, 6), grid, [Shard(0), Shard(0)]),
            ((5, 3), grid, [Shard(0), Shard(0)]),
            ((3, 3), grid, [Shard(0), Shard(0)]),
            ((7, 5), grid, [Shard(0), Shard(1)]),
            ((7, 5), grid, [Shard(1), Shard(0)]),
            ((7, 5), grid, [Replicate(), Shard(0)]),
            ((7, 5), grid, [Shard(0), Replicate()]),
            ((7, 5), grid["tp"], [Shard(0)]),
            ((7, 5), grid, [Shard(1), Shard(1)]),
            ((7, 5), grid, [Partial(), Shard(0)]),
            ((8, 3), grid, [_StridedShard(0, split_factor=2), Shard(0)]),
        ]
    made = []
    for shape, mesh, placements in cases:
        array = random.normal(size=shape)
        made.append((array, array if mesh is None else placed(array, mesh, placements)))
    return [array for array, _ in made], [torch.as_tensor(x) for _, x in made]


def placed(array, mesh, placements):
    if not any(p.is_partial() for p in placements):
        return distribute_tensor(torch.from_numpy(array), mesh, placements)
    # Everybody holds an unequal summand of the whole.
    dim = next(i for i, p in enumerate(placements) if p.is_partial())
    position, size = mesh.get_local_rank(dim), mesh.size(dim)
    share = (position + 1) / (size * (size + 1) / 2)
    share = share * size if placements[dim] == Partial("avg") else share
    others = [Replicate() if p.is_partial() else p for p in placements]
    local = distribute_tensor(
        torch.from_numpy(array * share), mesh, others, src_data_rank=None
    ).to_local()
    return DTensor.from_local(
        local,
        mesh,
        placements,
        shape=torch.Size(array.shape),
        stride=torch.empty(array.shape).stride(),
    )


def units_of(array):
    if array.ndim < 2 or 0 in array.shape:
        return [float(np.linalg.norm(array))]
    return [float(np.linalg.norm(unit)) for unit in array]


def local_units(array, part):
    if array.ndim < 2 or 0 in array.shape:
        return np.array([np.linalg.norm(part)])
    return np.linalg.norm(part.reshape(part.shape[0], math.prod(part.shape[1:])), axis=1)
