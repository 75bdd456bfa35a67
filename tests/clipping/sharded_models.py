"""The model, data, clippers and layouts of sharded_worker.py, and the reference in NumPy."""

import math

import numpy as np
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import clipping

STEPS = 9
SPIKES = {4: 40.0, 7: 300.0}
ROWS = 8
GATES = {"warmup_steps": 2, "min_history": 2}
CLIPPERS = {
    "auto": lambda **o: clipping.AutoClip(mode="auto", **GATES, **o),
    "percentile": lambda **o: clipping.AutoClip(
        mode="percentile", percentile=60.0, history="window", **GATES, **o
    ),
    "zscore": lambda **o: clipping.ZScoreClip(zmax=1.5, ema_decay=0.9, **GATES, **o),
    "agc": lambda **o: clipping.AGC(clipping=0.02, **o),
}
SCOPES = dict.fromkeys(CLIPPERS, ("global", "per_layer", "per_param"))
SCOPES["agc"] = (*SCOPES["agc"], "per_unit")


class Net(nn.Module):
    """Three layers and a parameter of its own, none of whose sizes is divisible by 4."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gain = nn.Parameter(torch.tensor([1.0, 0.5, 2.0]))
        self.up = nn.Linear(6, 10)
        self.mid = nn.Linear(10, 7)
        self.last = nn.Linear(7, 3)
        self.double()

    def forward(self, x):
        return self.last(torch.tanh(self.mid(torch.tanh(self.up(x))))) * self.gain


def batch(step):
    random = np.random.default_rng(step)
    return random.normal(size=(ROWS, 6)), random.normal(size=(ROWS, 3)), SPIKES.get(step, 1.0)


# The reference: network, gradients and clippers in NumPy, on the whole batch.


def reference_gradients(weights, step):
    gain, w1, b1, w2, b2, w3, b3 = weights
    x, target, factor = batch(step)
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    before = h2 @ w3.T + b3
    d_out = factor * 2 * (before * gain - target) / target.size
    d3 = d_out * gain
    d2 = d3 @ w3 * (1 - h2**2)
    d1 = d2 @ w2 * (1 - h1**2)
    return [
        (d_out * before).sum(0),
        *(d1.T @ x, d1.sum(0)),
        *(d2.T @ h1, d2.sum(0)),
        *(d3.T @ h2, d3.sum(0)),
    ]


def reference_groups(scope, agc):
    """Lists of (parameter, unit or None), each list scaled by one factor."""
    matrices = [1, 3, 5]
    kept = matrices if agc else list(range(7))
    if scope == "global":
        return [[(i, None) for i in kept]]
    if scope == "per_param":
        return [[(i, None)] for i in kept]
    if scope == "per_layer":
        layers = [[0], [1, 2], [3, 4], [5, 6]]
        layers = [[i for i in layer if i in kept] for layer in layers]
        return [[(i, None) for i in layer] for layer in layers if layer]
    return [
        [(i, unit)] for i, units in zip(matrices, (10, 7, 3), strict=True) for unit in range(units)
    ]


def pick(arrays, group):
    return np.concatenate([(arrays[i] if u is None else arrays[i][u]).ravel() for i, u in group])


def reference_threshold(name, past, norm, weight_norm):
    if name == "agc":
        return 0.02 * max(weight_norm, 1e-3)
    if name == "percentile":
        return np.percentile([*past, norm], 60.0)
    if name == "auto":
        return np.median(past) + 3 * np.std(past, ddof=1) if len(past) > 1 else math.inf
    if not past:
        return math.inf
    share = 0.9 ** np.arange(len(past))[::-1]
    share /= share.sum()
    mean = share @ past
    return mean + 1.5 * math.sqrt(share @ (np.array(past) - mean) ** 2)


def reference_training(name, scope):
    weights = [p.detach().numpy() for p in Net().parameters()]
    groups = reference_groups(scope, agc=name == "agc")
    past = [[] for _ in groups]
    norms, totals, thresholds, clipped = [], [], [], 0
    for step in range(STEPS):
        gradients = reference_gradients(weights, step)
        totals.append(math.sqrt(sum((g**2).sum() for g in gradients)))
        norms.append([float(np.linalg.norm(pick(gradients, group))) for group in groups])
        thresholds.append([])
        for group, history, norm in zip(groups, past, norms[-1], strict=True):
            limit = reference_threshold(name, history, norm, np.linalg.norm(pick(weights, group)))
            ready = name == "agc" or (step >= 2 and len(history) >= 2)
            scale = limit / (norm + (0 if name == "agc" else 1e-8))
            scale = scale if ready and norm > limit else 1.0
            for i, unit in group:
                gradients[i][... if unit is None else unit] *= scale
            history.append(norm if name == "percentile" else norm * scale)
            thresholds[-1].append(limit)
            clipped += scale < 1
        weights = [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]
    return {
        "weights": [w.tolist() for w in weights],
        "norms": norms,
        "totals": totals,
        "thresholds": thresholds,
        "clipped": int(clipped),
    }


# The layouts: from a model to a parallel one, and which rows of the batch this rank has.


def layouts(world):  # noqa: C901 -- a list of them
    whole = init_device_mesh("cpu", (world,), mesh_dim_names=("all",))

    def split(mesh):
        return slice(mesh.get_local_rank(), None, mesh.size())

    def ddp(model):
        return nn.parallel.DistributedDataParallel(model), split(whole)

    def fsdp(model):
        for layer in (model.up, model.mid, model.last):
            fully_shard(layer, mesh=whole)
        fully_shard(model, mesh=whole)
        return model, split(whole)

    def columns(model):
        def along(parameter):
            return Shard(int(parameter.dim() == 2 and parameter.shape[1] % 2 == 0))

        fully_shard(model, mesh=whole, shard_placement_fn=along)
        return model, split(whole)

    def tensor_parallel(mesh, model):
        return parallelize_module(model, mesh, {"up": ColwiseParallel(), "mid": RowwiseParallel()})

    if world == 2:
        return {
            "ddp": ddp,
            "fsdp": fsdp,
            "fsdp_columns": columns,
            "tp": lambda model: (tensor_parallel(whole, model), slice(None)),
        }
    flat = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    both = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))

    def hsdp(model):
        fully_shard(model, mesh=flat)
        return model, split(whole)

    def fsdp_tp(model):
        tensor_parallel(both["tp"], model)
        for layer in (model.up, model.mid, model.last):
            fully_shard(layer, mesh=both["dp"])
        fully_shard(model, mesh=both["dp"])
        return model, split(both["dp"])

    return {"fsdp": fsdp, "hsdp": hsdp, "fsdp_tp": fsdp_tp}
