"""What one rank of tests/clipping/test_torch_sharded.py does; started by torchrun.

Each rank writes what it saw to ``<folder>/<rank>.json``. The references are computed on every
rank, from the whole batch, in NumPy.
"""

import json
import math
import sys
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from sharded_models import CLIPPERS, SCOPES, STEPS, Net, batch, layouts, reference_training
from sharded_samples import local_units, samples, units_of
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import _StridedShard

import clipping
import clipping.torch
from clipping.backends import torch as torch_backend
from clipping.backends import torch_sharded
from clipping.engine import clip
from telemetry.testing import capture


def full(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().numpy()


def backward(model, rows, step):
    x, target, factor = batch(step)
    x, target = torch.from_numpy(x)[rows], torch.from_numpy(target)[rows]
    (factor * (model(x) - target).square().mean()).backward()


def train(model, rows, clipper, steps=range(STEPS)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    thresholds = []
    with (
        capture(("smartclip", "clip", "stop"), ("smartclip", "clip", "group")) as events,
        clipping.clip_context(model, optimizer, clipper),
    ):
        for step in steps:
            backward(model, rows, step)
            optimizer.step()
            thresholds.append(clipper.threshold_any())
            optimizer.zero_grad()
    return {
        "thresholds": thresholds,
        "weights": [full(p).tolist() for p in model.parameters()],
        "state": clipper.state_dict(),
        "events": [plain(event) for event in events],
    }


def plain(event):
    measurements = {
        name: x.tolist() if hasattr(x, "tolist") else x
        for name, x in event.measurements.items()
        if name not in {"duration", "monotonic_time", "system_time"}
    }
    return [event.event[-1], list(event.metadata.get("key", ())), measurements]


def check_training(world):
    runs = {
        layout: {
            name: {
                scope: train(*spread(Net()), CLIPPERS[name](scope=scope)) for scope in SCOPES[name]
            }
            for name in CLIPPERS
        }
        for layout, spread in layouts(world).items()
    }
    runs["single"] = {
        name: {scope: train(Net(), slice(None), CLIPPERS[name](scope=scope)) for scope in scopes}
        for name, scopes in SCOPES.items()
    }
    reference = {
        name: {scope: reference_training(name, scope) for scope in scopes}
        for name, scopes in SCOPES.items()
    }
    return {"runs": runs, "reference": reference}


def check_on_device(world):
    """Weights after training with norms, history and factors in tensors, as on an accelerator."""

    def trained(model, rows, clipper):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(STEPS):
            backward(model, rows, step)
            gradients = torch_backend.gradients_of(model, clipper)
            gradients.ops = gradients._plan.ops_on(torch.device("cpu"))
            clip(gradients, clipper)
            optimizer.step()
            optimizer.zero_grad()
        return [full(p).tolist() for p in model.parameters()]

    return {
        layout: {
            name: {
                scope: trained(*spread(Net()), CLIPPERS[name](scope=scope))
                for scope in ("global", SCOPES[name][-1])
            }
            for name in ("auto", "agc")
        }
        for layout, spread in layouts(world).items()
    }


def check_resume(world):
    """Half on the ranks, half in one process with the state of the first half, and back."""
    spread = layouts(world)["fsdp"]
    half = STEPS // 2
    model, rows = spread(Net())
    clipper = CLIPPERS["auto"](scope="per_layer")
    train(model, rows, clipper, range(half))
    alone = Net()
    for weight, sharded in zip(alone.parameters(), model.parameters(), strict=True):
        weight.data.copy_(torch.from_numpy(full(sharded)))
    continued = CLIPPERS["auto"](scope="per_layer")
    continued.load_state_dict(json.loads(json.dumps(clipper.state_dict())))
    return {
        "sharded": train(model, rows, clipper, range(half, STEPS)),
        "alone": train(alone, slice(None), continued, range(half, STEPS)),
    }


def check_nonfinite(world):
    """A NaN, or an infinity, in what rank 1 holds of one weight."""
    rank, found = dist.get_rank(), {}
    for policy in ("skip", "zero", "propagate", "raise"):
        for scope in ("global", "per_param"):
            for value in (math.nan, math.inf):
                model, rows = layouts(world)["fsdp"](Net())
                clipper = CLIPPERS["auto"](scope=scope, on_nonfinite=policy)
                train(model, rows, clipper, range(3))
                backward(model, rows, 3)
                if rank == 1:
                    model.up.weight.grad.to_local()[0, 0] = value
                before = clipper.state_dict()
                error = None
                with capture(("smartclip", "clip", "nonfinite")) as events:
                    try:
                        clipping.apply(model, clipper)
                    except FloatingPointError as refused:
                        error = str(refused)
                after = clipper.state_dict()
                gradients = [full(p.grad) for p in model.parameters()]
                found[f"{policy} {scope} {value}"] = {
                    "error": error,
                    "events": [[e.measurements["count"], e.metadata["keys"]] for e in events],
                    "history": [before["norms"], after["norms"]],
                    "finite": [bool(np.isfinite(g).all()) for g in gradients],
                    "zero": [not g.any() for g in gradients],
                }
    return found


def check_placements(world):
    arrays, tensors = samples(world)
    shards = torch_sharded.shards_of(tensors)
    parts = [x.numpy() for x in shards.locals]
    norms = np.array([np.linalg.norm(part) for part in parts])
    units = [local_units(*pair) for pair in zip(arrays, parts, strict=True)]
    with CommDebugMode() as counter:
        whole = shards.norms(norms)
    return {
        "norms": [whole.tolist(), [float(np.linalg.norm(a)) for a in arrays]],
        "units": [
            shards.unit_norms(units).tolist(),
            list(chain.from_iterable(map(units_of, arrays))),
        ],
        "on_device": shards.norms(torch.from_numpy(norms).float()).tolist(),
        "units_on_device": shards.unit_norms([torch.from_numpy(u).float() for u in units]).tolist(),
        "collectives": counter.get_total_counts(),
        "partial": [
            bool(any(p.is_partial() for p in x.placements))
            for x in tensors
            if isinstance(x, DTensor)
        ],
        "values": all(np.allclose(full(x), a) for x, a in zip(tensors, arrays, strict=True)),
        "rows": [
            None if rows is None else [rows.start, rows.stop]
            for rows in map(shards.local_rows, range(len(tensors)))
        ],
        "nothing": torch_sharded.shards_of([torch.ones(2)]),
    }


def check_many(world):
    """As many norms as fit in one message, and one more."""
    mesh, found = init_device_mesh("cpu", (world,)), []
    for n in (255, 256):
        tensors = [DTensor.from_local(torch.ones(1, 2), mesh, [Shard(0)]) for _ in range(n)]
        shards = torch_sharded.shards_of(tensors)
        with CommDebugMode() as counter:
            norms = shards.norms(np.arange(n, dtype=np.float64))
        found.append([norms.tolist(), counter.get_total_counts()])
    return found


def check_special_values(world):
    """A NaN, an infinity, or both, on one rank only."""
    mesh = init_device_mesh("cpu", (world,))
    values = {"nan": math.nan, "inf": math.inf}
    found = {}
    for name, value in values.items():
        tensor = distribute_tensor(torch.zeros(world, 2), mesh, [Shard(0)])
        if dist.get_rank() == world - 1:
            tensor.to_local()[0, 0] = value
        shards = torch_sharded.shards_of([tensor])
        part = np.linalg.norm(shards.locals[0].numpy(), axis=1).astype(np.float64)
        found[name] = [
            shards.norms(part).tolist(),
            shards.unit_norms([part]).tolist(),
            shards.norms(torch.from_numpy(part).float()).tolist(),
            shards.unit_norms([torch.from_numpy(part).float()]).tolist(),
        ]
    return found


def check_sequence_parallel(world):
    """The gradients of a norm's weights are sums that are still due (Partial)."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.norm = nn.LayerNorm(6)
            self.up = nn.Linear(6, 2 * world)

        def forward(self, x):
            return self.up(self.norm(x))

    def clipped(model, x, loss):
        clipper = clipping.AGC(scope="per_param", exclude_bias_bn=False)
        loss(model(x)).backward()
        due = [
            any(p.is_partial() for p in w.grad.placements)
            for w in model.parameters()
            if isinstance(w.grad, DTensor)
        ]
        with capture(("smartclip", "clip", "group")) as events:
            clipping.apply(model, clipper)
        norms = [event.measurements["grad_norm"] for event in events]
        return due, norms, [full(w.grad).tolist() for w in model.parameters()]

    mesh = init_device_mesh("cpu", (world,))
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 2 * world, 6))).float()
    model = parallelize_module(
        Block(),
        mesh,
        {
            "norm": SequenceParallel(),
            "up": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
        },
    )
    mine = distribute_tensor(x, mesh, [Shard(1)]).to_local()
    due, norms, grads = clipped(model, mine, lambda y: y.square().mean())
    _, norms_alone, grads_alone = clipped(Block(), x, lambda y: y.square().mean())
    return {"due": due, "norms": [norms, norms_alone], "grads": [grads, grads_alone]}


def check_refusals(world):
    rank, found = dist.get_rank(), {}
    line = init_device_mesh("cpu", (world,))

    def refused(name, kind, act):
        found[name] = None
        try:
            act()
        except kind as error:
            found[name] = str(error)

    def gradient(*shape):
        return distribute_tensor(torch.ones(shape), line, [Shard(0)])

    some = [gradient(4, 2), gradient(3, 2)]
    clipper = clipping.AutoClip()
    refused(
        "disagreement",
        RuntimeError,
        lambda: clipping.torch.apply_grads(some if rank else some[:1], clipper),
    )
    found["untouched"] = [bool((x.to_local() == 1).all()) for x in some]
    found["steps"] = clipper.state_dict()["steps"]
    many = [DTensor.from_local(torch.ones(1, 2), line, [Shard(0)]) for _ in range(300)]
    refused(
        "many",
        RuntimeError,
        lambda: clipping.torch.apply_grads(many if rank else many[:200], clipping.AutoClip()),
    )
    first = DeviceMesh("cpu", [0])
    foreign = DTensor.from_local(torch.ones(2, 2), first, [Shard(0)])
    refused(
        "foreign", ValueError, lambda: clipping.torch.apply_grads([foreign], clipping.AutoClip())
    )
    deaf = DeviceMesh.from_group(dist.new_group(backend="cuda:gloo"), "cpu")
    unreachable = DTensor.from_local(torch.ones(2, 2), deaf, [Shard(0)])
    refused(
        "unreachable",
        ValueError,
        lambda: clipping.torch.apply_grads([unreachable], clipping.AutoClip()),
    )
    here = {0: 2, 1: 1}.get(rank, 0)
    uneven = DTensor.from_local(
        torch.ones(here, 2),
        line,
        [_StridedShard(0, split_factor=2)],
        shape=torch.Size((3, 2)),
        stride=(2, 1),
    )
    spread = torch_sharded.shards_of([uneven])
    refused("scattered_on_one", ValueError, lambda: spread.unit_norms([np.ones(here)]))
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2))
        scattered = distribute_tensor(
            torch.ones(8, 2), grid, [_StridedShard(0, split_factor=2), Replicate()]
        )
        shards = torch_sharded.shards_of([scattered])
        refused("scattered", ValueError, lambda: shards.unit_norms([np.ones(4)]))
        found["scattered_norm"] = shards.norms(np.array([math.sqrt(8)])).tolist()
    return found


def check_layout_is_found_once(world):
    known = []
    for spread in layouts(world).values():
        model, rows = spread(Net())
        seen = []
        for step in range(2):
            backward(model, rows, step)
            shards = torch_sharded.shards_of([p.grad for p in model.parameters()])
            seen.append(shards and shards._layout)
            model.zero_grad()
        known.append(seen[0] is seen[1])
    return known


CHECKS = {
    "training": check_training,
    "on_device": check_on_device,
    "resume": check_resume,
    "nonfinite": check_nonfinite,
    "placements": check_placements,
    "many": check_many,
    "special_values": check_special_values,
    "sequence_parallel": check_sequence_parallel,
    "refusals": check_refusals,
    "layout_is_found_once": check_layout_is_found_once,
}


def main(folder, *names):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=600))
    rank, world = dist.get_rank(), dist.get_world_size()
    found = {name: CHECKS[name](world) for name in names or CHECKS}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
