"""On a device nothing may be read: norms, history and factors are tensors there."""

import importlib

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

torch = importlib.import_module("torch")

from clipping.backends import torch as backend  # noqa: E402 -- torch may be absent
from clipping.engine import clip, clip_once  # noqa: E402 -- torch may be absent

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def on_device(gradients):
    """Gradients on the CPU, treated as if they were on a device."""
    gradients.ops = gradients._plan.ops_on(CPU)
    return gradients


def bare(clipper, *tensors):
    return backend.bare_gradients(list(tensors), None, clipper, "")


def clip_on_device(clipper, *tensors):
    clip(on_device(bare(clipper, *tensors)), clipper)


CLIPPERS = [
    {"mode": "auto"},
    {"mode": "percentile", "history": "window", "percentile": 70},
    {"mode": "percentile", "history": "ema", "percentile": 70},
]
GATES = {"warmup_steps": 2, "min_history": 2}
MADE = {
    "auto": lambda **kw: clipping.AutoClip(window_size=8, **GATES, **kw),
    "window": lambda **kw: clipping.AutoClip(
        mode="percentile", percentile=70, history="window", window_size=8, **GATES, **kw
    ),
    "ema": lambda **kw: clipping.AutoClip(
        mode="percentile", percentile=70, window_size=8, **GATES, **kw
    ),
    "zscore": lambda **kw: clipping.ZScoreClip(zmax=1.0, **GATES, **kw),
    "agc": lambda **kw: clipping.AGC(clipping=0.3, **kw),
    "agc all": lambda **kw: clipping.AGC(clipping=0.3, exclude_bias_bn=False, **kw),
}
SCOPED = [
    (name, scope)
    for name in MADE
    for scope in ("global", "per_layer", "per_param", "per_unit")
    if scope != "per_unit" or name.startswith("agc")
]
POLICIES = ["skip", "zero", "propagate"]


@pytest.mark.parametrize("options", CLIPPERS)
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_device_decides_as_the_host_does(options, policy):
    options = options | {
        "warmup_steps": 2,
        "min_history": 2,
        "window_size": 8,
        "on_nonfinite": policy,
    }
    host_side, device_side = clipping.AutoClip(**options), clipping.AutoClip(**options)
    norms = np.random.default_rng(0).lognormal(sigma=1.5, size=40)
    norms[[7, 21]] = np.nan, np.inf
    for norm in norms:
        first, second = torch.tensor([norm]), torch.tensor([norm])
        clip(bare(host_side, first), host_side)
        clip_on_device(device_side, second)
        torch.testing.assert_close(second, first, rtol=1e-5, atol=0, equal_nan=True)
        assert device_side.threshold_any() == pytest.approx(host_side.threshold_any(), rel=1e-5)
    assert device_side.state_dict()["counts"] == host_side.state_dict()["counts"]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_device_zeroes_what_is_not_finite(dtype, bad):
    grads = [torch.tensor([bad, 1.0], dtype=dtype), torch.ones(2, 2)[:, 0]]
    clip_on_device(clipping.AutoClip(), *grads)
    assert [g.tolist() for g in grads] == [[0.0, 0.0], [0.0, 0.0]]


class Net(torch.nn.Module):
    """Large and small weights, a 0-d and an empty one, and one that seldom has a gradient."""

    def __init__(self, dtype=torch.float32, device=None):
        super().__init__()
        options = {"dtype": dtype, "device": device}
        self.conv = torch.nn.Conv2d(3, 4, 3, **options)
        self.large = torch.nn.Linear(300, 256, **options)
        self.small = torch.nn.Linear(3, 2, **options)
        self.scale = torch.nn.Parameter(torch.ones((), **options))
        self.empty = torch.nn.Parameter(torch.ones((0, 5), **options))
        self.seldom = torch.nn.Parameter(torch.ones((3, 2), **options))

    def fill(self, rng, *, seldom, bad=None, size=1.0):
        for index, (name, parameter) in enumerate(self.named_parameters()):
            values = rng.standard_normal(parameter.shape) * rng.lognormal(
                sigma=1.5, mean=np.log(size)
            )
            if index == bad:
                values.flat[0] = np.nan
            grad = torch.tensor(values, dtype=parameter.dtype)
            parameter.grad = None if name == "seldom" and not seldom else grad
        if self.conv.weight.grad is not None:
            grad = self.conv.weight.grad
            self.conv.weight.grad = grad.contiguous(memory_format=torch.channels_last)


def twins(dtype=torch.float32):
    torch.manual_seed(0)
    first, second = Net(dtype), Net(dtype)
    second.load_state_dict(first.state_dict())
    return first, second


TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 1e-2, torch.complex64: 1e-5}


@pytest.mark.parametrize(("name", "scope"), SCOPED)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_scope_on_a_device_equals_the_host(name, scope, policy):
    compare_with_host(name, scope, policy, torch.float32)


@pytest.mark.parametrize(("name", "scope"), [("zscore", "global"), *SCOPED[-3:]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_every_dtype_on_a_device_equals_the_host(name, scope, dtype):
    compare_with_host(name, scope, "zero", dtype)


def compare_with_host(name, scope, policy, dtype):
    on_host = MADE[name](scope=scope, on_nonfinite=policy)
    device_side = MADE[name](scope=scope, on_nonfinite=policy)
    first, second = twins(dtype)
    clipped = 0
    with capture(("smartclip", "**")) as events:
        for step in range(8):
            for net in (first, second):
                rng = np.random.default_rng(step)
                bad, size = 5 if step == 5 else None, 50.0 if step == 7 else 1.0
                net.fill(rng, seldom=step % 3 == 2, bad=bad, size=size)
            clipping.apply(first, on_host)
            clip(on_device(backend.gradients_of(second, device_side)), device_side)
            for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
                torch.testing.assert_close(
                    theirs.grad, mine.grad, rtol=TOLERANCES[dtype], atol=0, equal_nan=True
                )
            told, events[:] = list(events), []
            compare_events(told)
            clipped += sum(int(e.measurements.get("groups_clipped", 0)) for e in told)
    assert clipped > 0
    assert device_side.threshold_any() == pytest.approx(on_host.threshold_any(), rel=1e-3)


def compare_events(told):
    half = len(told) // 2
    # The non-finite event of a device comes last.
    by_name = lambda e: (e.event, str(e.metadata.get("key")))  # noqa: E731
    told = [*sorted(told[:half], key=by_name), *sorted(told[half:], key=by_name)]
    assert [e.event for e in told[:half]] == [e.event for e in told[half:]]
    for mine, theirs in zip(told[:half], told[half:], strict=True):
        if mine.event[-1] == "start":
            continue
        drop = {"duration", "monotonic_time"}
        for name in mine.measurements.keys() - drop:
            ours, there = mine.measurements[name], theirs.measurements[name]
            np.testing.assert_allclose(np.asarray(there), ours, rtol=1e-3, err_msg=name)
        for name in ("key", "keys"):
            assert mine.metadata.get(name) == theirs.metadata.get(name)


@pytest.mark.parametrize(("name", "scope"), SCOPED)
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [("skip", torch.float32), ("zero", torch.bfloat16), ("propagate", torch.float32)],
)
def test_nothing_is_read_from_a_device(name, scope, policy, dtype):
    """Any read of a tensor on the meta device fails."""
    clipper = MADE[name](scope=scope, on_nonfinite=policy)
    model = Net(dtype, "meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture() as events, clipping.clip_context(model, optimizer, clipper):
        for step in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)
            if step == 1:
                model.seldom.grad = None
            optimizer.step()
    assert {e.event[-1] for e in events} == {"start", "group", "stop"}
    stop = events[-1]
    one = scope == "global"
    scalars = ["grad_norm", "clipped_grad_norm", "scale", "groups_clipped"]
    scalars += list(clipper.limits(None, clipping_measured())) if one else []
    for scalar in scalars:
        value = stop.measurements[scalar]
        assert (value.device.type, value.dim()) == ("meta", 0)
    assert "outcome" not in stop.metadata
    for measured in ("grad_norm", "scale", "clipped"):
        dims = int(scope == "per_unit")
        assert events[-2].measurements[measured].dim() == dims


def clipping_measured():
    from clipping.records import Measured

    return Measured(None)


class Launches(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operations that are no mere views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("scope", ["per_layer", "per_param", "per_unit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_launches_do_not_grow_with_the_number_of_small_tensors(scope, dtype):
    def count(tensors):
        model = torch.nn.ModuleList(torch.nn.Linear(4, 3, dtype=dtype) for _ in range(tensors))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        clipper = clipping.AGC(scope=scope, exclude_bias_bn=False)
        for _ in range(2):
            gradients = on_device(backend.gradients_of(model, clipper))
            with Launches() as launches:
                clip(gradients, clipper)
        return launches.count

    assert count(40) == count(10)


def test_nonfinite_gradients_of_a_device_are_announced():
    clipper = clipping.AutoClip(scope="per_param", on_nonfinite="zero")
    bad = torch.tensor([float("inf")])
    with capture(("smartclip", "clip", "nonfinite")) as events:
        clip_on_device(clipper, torch.ones(1), bad)
    (event,) = events
    assert event.metadata == {"algo": "autoclip", "keys": (("param", "1"),), "policy": "zero"}
    assert event.measurements["count"] == 1
    assert event.measurements["grad_norm"].item() == float("inf")


def test_what_a_device_handed_over_is_not_written_to():
    clipper = clipping.AutoClip(mode="percentile", warmup_steps=0, min_history=1)
    handed = []

    def keep(_event, measurements, _metadata, _config):
        tensors = [v for v in measurements.values() if isinstance(v, torch.Tensor)]
        handed.extend((tensor, tensor.clone(), tensor._version) for tensor in tensors)

    with telemetry.attach("keep", ("smartclip", "**"), keep):
        for norm in (1.0, 5.0, 2.0, 9.0):
            clip_on_device(clipper, torch.tensor([norm]))
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
        clip_on_device(clipper, grad)
    assert events[0].metadata["keys"] == (("global",),)
    assert events[0].measurements["count"] == 1


def test_on_metrics_gets_python_numbers_from_a_device():
    records = []
    clipper = clipping.AutoClip(mode="percentile")
    clip_once(on_device(bare(clipper, torch.tensor([3.0]))), clipper, records.append)
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
    clip_on_device(halving, torch.tensor([3.0]))
    first = torch.tensor([4.0])
    clip_on_device(halving, first)
    assert first.item() == pytest.approx(1.0)
    clipping.torch.apply_grads(torch.tensor([0.5]), halving)
    assert halving.state_dict()["norms"] == [[1.0, 3.0, 4.0, 0.5]]


def test_state_of_a_device_continues_bit_identically():
    options = {"warmup_steps": 0, "min_history": 1, "window_size": 8}
    norms = np.random.default_rng(2).lognormal(sigma=1.5, size=40)
    straight, resumed = clipping.AutoClip(**options), clipping.AutoClip(**options)
    for norm in norms[:20]:
        clip_on_device(straight, torch.tensor([norm], dtype=torch.float32))
    resumed.load_state_dict(straight.state_dict())
    for norm in norms[20:]:
        for clipper in (straight, resumed):
            clip_on_device(clipper, torch.tensor([norm], dtype=torch.float32))
    assert resumed.state_dict() == straight.state_dict()
