"""On a real accelerator: no step waits for it, and the results are the CPU's."""

import copy
import importlib

import pytest

import clipping
import telemetry

torch = importlib.import_module("torch")

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)

GATES = {"warmup_steps": 1, "min_history": 1}
MAKE = {
    "auto": lambda **kw: clipping.AutoClip(window_size=8, **GATES, **kw),
    "window": lambda **kw: clipping.AutoClip(
        mode="percentile", percentile=50, history="window", window_size=8, **GATES, **kw
    ),
    "ema": lambda **kw: clipping.AutoClip(
        mode="percentile", percentile=50, window_size=8, **GATES, **kw
    ),
    "zscore": lambda **kw: clipping.ZScoreClip(zmax=0.5, **GATES, **kw),
    "agc": lambda **kw: clipping.AGC(clipping=0.05, **kw),
}
CASES = [
    (name, scope)
    for name in MAKE
    for scope in ("global", "per_layer", "per_param", "per_unit")
    if scope != "per_unit" or name == "agc"
]
STEPS = 6


@pytest.fixture
def no_waiting():
    """Any operation that waits for the device raises, while this is active."""
    torch.cuda.synchronize()
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def net():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(3, 8, 3),
            "large": torch.nn.Linear(512, 512),
            "small": torch.nn.Linear(3, 2),
            "norm": torch.nn.LayerNorm(5),
            "seldom": torch.nn.Linear(4, 4),
        }
    )


def gradients(model, bad):
    """For each step those of every parameter, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    steps = []
    for step in range(STEPS):
        size = 1.0 + step
        grads = [size * torch.randn(p.shape, generator=generator) for p in model.parameters()]
        if bad and step == 3:
            grads[2].view(-1)[0] = float("nan")
        steps.append(grads)
    return steps


def place(model, grads, step):
    for (name, parameter), grad in zip(model.named_parameters(), grads, strict=True):
        absent = name.startswith("seldom") and step == 2
        parameter.grad = None if absent else grad.to(parameter)


def hear(event, measurements, metadata, heard):
    heard.append((event, measurements))


@pytest.mark.parametrize(("name", "scope"), CASES)
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_step_waits_and_all_equal_the_cpu(name, scope, policy, dtype, no_waiting):
    on_host = net().to(dtype)
    on_device = copy.deepcopy(on_host).cuda()
    here, there = (MAKE[name](scope=scope, on_nonfinite=policy) for _ in range(2))
    steps = gradients(on_host, bad=policy != "propagate")
    heard = []
    with telemetry.attach("hear", ("smartclip", "**"), hear, config=heard):
        for step, grads in enumerate(steps):
            place(on_host, grads, step)
            clipping.apply(on_host, here)
            place(on_device, [grad.cuda() for grad in grads], step)
            torch.cuda.synchronize()
            no_waiting()
            clipping.apply(on_device, there)
            torch.cuda.set_sync_debug_mode("default")
            compare(on_host, on_device, 1e-4 if dtype == torch.float32 else 2e-2)
    assert {event[-1] for event, _ in heard} >= {"start", "group", "stop"}
    assert there.threshold_any() == pytest.approx(here.threshold_any(), rel=1e-3)


def compare(on_host, on_device, rtol):
    for mine, theirs in zip(on_host.parameters(), on_device.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(theirs.grad.cpu(), mine.grad, rtol=rtol, atol=0)


def test_nonfinite_event_comes_without_waiting(no_waiting):
    model = torch.nn.Linear(3, 2, device="cuda")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    heard = []
    clipper = clipping.AutoClip()
    with telemetry.attach("hear", ("smartclip", "clip", "nonfinite"), hear, config=heard):
        no_waiting()
        clipping.apply(model, clipper)
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        no_waiting()
        clipping.apply(model, clipper)
    assert heard[0][1]["count"] == 1


def test_default_device_does_not_matter():
    heard = []
    clipper = clipping.AutoClip(scope="per_param")
    model = torch.nn.Linear(3, 2, device="cuda")
    torch.set_default_device("cuda")
    try:
        with telemetry.attach("hear", ("smartclip", "clip", "nonfinite"), hear, config=heard):
            for _ in range(2):
                for parameter in model.parameters():
                    parameter.grad = torch.full_like(parameter, float("inf"))
                clipping.apply(model, clipper)
                torch.cuda.synchronize()
    finally:
        torch.set_default_device(None)
    assert heard[0][1]["count"] == 2
    assert not any(p.grad.any() for p in model.parameters())


def test_context_leaves_no_event_behind(no_waiting):
    model = torch.nn.Linear(3, 2, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    heard = []
    with telemetry.attach("hear", ("smartclip", "clip", "nonfinite"), hear, config=heard):
        with clipping.clip_context(model, optimizer, clipping.AutoClip()):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, float("nan"))
            optimizer.step()
        assert len(heard) == 1
