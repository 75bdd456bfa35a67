"""On a device nothing may be read: norms, history and factors are tensors there."""

import importlib

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

torch = importlib.import_module("torch")

from clipping.backends import torch as backend  # noqa: E402 -- torch may be absent
from clipping.backends.torch_ops import TorchOps  # noqa: E402 -- torch may be absent
from clipping.engine import clip, clip_once  # noqa: E402 -- torch may be absent


class OnDevice(backend.TorchGradients):
    """CPU tensors, treated as if they were on a device."""

    def __init__(self, *tensors):
        tensors = list(tensors)
        super().__init__(tensors, {t.dtype for t in tensors}, sparse=tensors[0].is_sparse)
        self.ops = TorchOps(torch.device("cpu"))


CLIPPERS = [
    {"mode": "auto"},
    {"mode": "percentile", "history": "window", "percentile": 70},
    {"mode": "percentile", "history": "ema", "percentile": 70},
]


@pytest.mark.parametrize("options", CLIPPERS)
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_device_decides_as_the_host_does(options, policy):
    options = options | {
        "warmup_steps": 2,
        "min_history": 2,
        "window_size": 8,
        "on_nonfinite": policy,
    }
    on_host, on_device = clipping.AutoClip(**options), clipping.AutoClip(**options)
    norms = np.random.default_rng(0).lognormal(sigma=1.5, size=40)
    norms[[7, 21]] = np.nan, np.inf
    for norm in norms:
        first, second = torch.tensor([norm]), torch.tensor([norm])
        clip(backend.checked([first]), on_host)
        clip(OnDevice(second), on_device)
        torch.testing.assert_close(second, first, rtol=1e-5, atol=0, equal_nan=True)
        assert on_device.threshold_any() == pytest.approx(on_host.threshold_any(), rel=1e-5)
    assert on_device.state_dict()["counts"] == on_host.state_dict()["counts"]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_device_zeroes_what_is_not_finite(dtype, bad):
    grads = [torch.tensor([bad, 1.0], dtype=dtype), torch.ones(2, 2)[:, 0]]
    clip(OnDevice(*grads), clipping.AutoClip())
    assert [g.tolist() for g in grads] == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("options", CLIPPERS)
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_nothing_is_read_from_a_device(options, policy):
    """Any read of a tensor on the meta device fails."""
    clipper = clipping.AutoClip(**options, on_nonfinite=policy, warmup_steps=0, min_history=1)
    model = torch.nn.Linear(3, 2, device="meta")
    model.half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture() as events, clipping.clip_context(model, optimizer, clipper):
        for _ in range(3):
            model(torch.ones(1, 3, device="meta", dtype=torch.float16)).sum().backward()
            optimizer.step()
    assert [e.event[-1] for e in events[-3:]] == ["start", "group", "stop"]
    stop = events[-1]
    assert stop.measurements["groups"] == 1
    scalars = ("grad_norm", "clipped_grad_norm", "scale", "groups_clipped", "threshold")
    for name in scalars:
        assert (stop.measurements[name].device.type, stop.measurements[name].dim()) == ("meta", 0)
    assert "outcome" not in stop.metadata
    for name in ("grad_norm", "threshold", "scale", "clipped"):
        assert events[-2].measurements[name].dim() == 0


def test_what_a_device_handed_over_is_not_written_to():
    clipper = clipping.AutoClip(mode="percentile", warmup_steps=0, min_history=1)
    handed = []

    def keep(_event, measurements, _metadata, _config):
        tensors = [v for v in measurements.values() if isinstance(v, torch.Tensor)]
        handed.extend((tensor, tensor.clone(), tensor._version) for tensor in tensors)

    with telemetry.attach("keep", ("smartclip", "**"), keep):
        for norm in (1.0, 5.0, 2.0, 9.0):
            clip(OnDevice(torch.tensor([norm])), clipper)
    assert len(handed) == 4 * (5 + 4)
    for tensor, before, version in handed:
        assert tensor._version == version
        assert tensor.equal(before)


def test_raise_reads_the_device():
    clipper = clipping.AutoClip(on_nonfinite="raise")
    grad = torch.tensor([float("nan")])
    with (
        capture(("smartclip", "clip", "nonfinite")) as events,
        pytest.raises(FloatingPointError, match="gradient norm is nan"),
    ):
        clip(OnDevice(grad), clipper)
    assert events[0].metadata["keys"] == (("global",),)
    assert events[0].measurements["count"] == 1


def test_on_metrics_gets_python_numbers_from_a_device():
    records = []
    clip_once(OnDevice(torch.tensor([3.0])), clipping.AutoClip(mode="percentile"), records.append)
    assert records == [
        {
            "algo": "autoclip",
            "key": ("global",),
            "scope": "global",
            "grad_norm": 3.0,
            "threshold": 3.0,
            "scale": 1.0,
            "clipped": False,
        }
    ]
    assert type(records[0]["grad_norm"]) is float


def test_history_moves_between_host_and_device(halving):
    clip(OnDevice(torch.tensor([3.0])), halving)
    first = torch.tensor([4.0])
    clip(OnDevice(first), halving)
    assert first.item() == pytest.approx(1.0)
    clipping.torch.apply_grads(torch.tensor([0.5]), halving)
    assert halving.state_dict()["norms"] == [[1.0, 3.0, 4.0, 0.5]]


def test_state_of_a_device_continues_bit_identically():
    options = {"warmup_steps": 0, "min_history": 1, "window_size": 8}
    norms = np.random.default_rng(2).lognormal(sigma=1.5, size=40)
    straight, resumed = clipping.AutoClip(**options), clipping.AutoClip(**options)
    for norm in norms[:20]:
        clip(OnDevice(torch.tensor([norm], dtype=torch.float32)), straight)
    resumed.load_state_dict(straight.state_dict())
    for norm in norms[20:]:
        for clipper in (straight, resumed):
            clip(OnDevice(torch.tensor([norm], dtype=torch.float32)), clipper)
    assert resumed.state_dict() == straight.state_dict()
