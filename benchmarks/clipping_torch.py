"""What clipping costs on torch's CPU tensors, beside ``torch.nn.utils.clip_grad_norm_``.

One thread. "clipping" means that every group is clipped in every step: the gradients are set back
before each timing, outside of it. Histories are full, of 1,024 norms a group.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import clipping
import telemetry
from benchmarks.table import Bound, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure

PEER = "torch.nn.utils.clip_grad_norm_"
TINY, HUGE = 1e-6, 10.0
"""The norms in the histories, as shares of the gradients' own."""
WINDOW = 1024
RESET = "torch._foreach_copy_(grads, pristine)"
LISTENERS: dict[str, telemetry.EventName] = {
    "stop": ("smartclip", "clip", "stop"),
    "all clip events": ("smartclip", "**"),
}


def resnet50() -> list[tuple[int, ...]]:
    """The parameters of torchvision's ResNet-50: 25.6 million in 161 tensors."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            kernels = [(width, channels, 1, 1), (width, width, 3, 3), (width * 4, width, 1, 1)]
            if block == 0:
                kernels.append((width * 4, channels, 1, 1))
            for kernel in kernels:
                shapes += [kernel, kernel[:1], kernel[:1]]
            channels = width * 4
    return [*shapes, (1000, 2048), (1000,)]


def gpt2_small() -> list[tuple[int, ...]]:
    """The parameters of GPT-2 small: 124 million in 148 tensors."""
    shapes: list[tuple[int, ...]] = [(50257, 768), (1024, 768)]
    for _ in range(12):
        shapes += [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,)]
        shapes += [(768,), (768,), (768, 3072), (3072,), (3072, 768), (768,)]
    return [*shapes, (768,), (768,)]


def many() -> list[tuple[int, ...]]:
    """2,000 tensors of 64x64."""
    return [(64, 64)] * 2000


SHAPES = {"ResNet-50": resnet50, "GPT-2 small": gpt2_small, "2,000 of 64x64": many}


class Case(NamedTuple):
    """A clipper, what its history holds as a share of the gradients' norms, and the bound."""

    name: str
    make: Callable[[], clipping.Clipper]
    share: float
    limit: float


def run(rounds: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for title, shapes in SHAPES.items():
            _run_on(title, shapes(), max(5, rounds // 5))
    finally:
        torch.set_num_threads(threads)


def _run_on(title: str, shapes: list[tuple[int, ...]], rounds: int) -> None:
    torch.manual_seed(0)
    model = Model(shapes)
    pristine = [torch.randn_like(p) for p in model.parameters()]
    for parameter, gradient in zip(model.parameters(), pristine, strict=True):
        parameter.grad = gradient.clone()
    grads = [p.grad for p in model.parameters()]
    names = {"model": model, "grads": grads, "pristine": pristine, "torch": torch}
    clip = {**names, "clip": torch.nn.utils.clip_grad_norm_}
    peer = Contender(PEER, "clip(model.parameters(), 1e-3)", clip, RESET)
    peers = [Contender(name, "act()", {**names, "act": act}, RESET) for name, act in _peers(model)]
    cases = [(case, _filled(case, model)) for case in _cases(many=len(shapes) == 2000)]
    for heard, event in LISTENERS.items():
        last: dict[str, Any] = {}
        with telemetry.attach("benchmark", event, _hear, config=last):
            ours = [
                Contender(
                    case.name,
                    "apply(model, clipper)",
                    {**names, "clipper": clipper, "apply": clipping.apply},
                    RESET,
                )
                for case, clipper in cases
            ]
            contenders = [peer, *ours, *(peers if heard == "stop" else [])]
            results = measure(contenders, rounds, THREAD_CPU_NS)
            for case, clipper in cases:
                torch._foreach_copy_(grads, pristine)
                clipping.apply(model, clipper)
                _check(case, last)
        bounds = [Bound(case.name, PEER, case.limit) for case, _ in cases]
        heading = f"clipping on torch, {title}, a handler hears {heard}"
        print_table(f"{heading} (thread CPU time, {rounds} rounds)", results, PEER, bounds)


class Model(torch.nn.Module):
    """Weights and biases of some shapes: a bias is in the layer of the weight before it."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        for index, shape in enumerate(shapes):
            if len(shape) > 1:
                self.layers.append(torch.nn.Module())
            self.layers[-1].register_parameter(str(index), torch.nn.Parameter(torch.randn(shape)))


def _cases(*, many: bool) -> Iterator[Case]:
    now = {"warmup_steps": 0, "min_history": 0}
    for name, make in (
        ("AutoClip auto", clipping.AutoClip),
        ("AutoClip window", partial(_percentile, "window")),
        ("AutoClip ema", partial(_percentile, "ema")),
        ("ZScoreClip", clipping.ZScoreClip),
    ):
        yield Case(f"{name} global, unclipped", partial(make, **now), HUGE, 0.60)
        yield Case(f"{name} global, clipping", partial(make, **now), TINY, 1.10)
        for scope in ("per_param", "per_layer"):
            scoped = partial(make, scope=scope, **now)
            yield Case(f"{name} {scope}, clipping", scoped, TINY, 1.3)
    for scope, limit in (("per_param", 1.8 if many else 1.7), ("per_unit", 2.8 if many else 1.9)):
        make = partial(clipping.AGC, scope=scope, exclude_bias_bn=False)
        yield Case(f"AGC {scope}, clipping", make, TINY, limit)


def _percentile(history: str, **options: Any) -> clipping.AutoClip:
    # A low one, so that the norms of the benchmark itself do not become the threshold.
    return clipping.AutoClip(mode="percentile", history=history, percentile=10.0, **options)


def _filled(case: Case, model: Model) -> clipping.Clipper:
    """A clipper with a full history."""
    clipper = case.make()
    if isinstance(clipper, clipping.AGC):
        return clipper
    clipping.apply(model, clipper)
    state = clipper.state_dict()
    noise = np.random.default_rng(0).lognormal(0.0, 0.1, WINDOW)
    if "means" in state:
        state["means"] = [norm * case.share for norm in state["means"]]
        state["variances"] = [(0.1 * mean) ** 2 for mean in state["means"]]
    else:
        state["norms"] = [(norm * case.share * noise).tolist() for (norm,) in state["norms"]]
        state.pop("anchors", None)
    state["counts"] = [WINDOW] * len(state["keys"])
    state["steps"] = WINDOW
    clipper.load_state_dict(state)
    return clipper


def _check(case: Case, last: dict[str, Any]) -> None:
    groups = last["groups"]
    expected = 0 if case.share == HUGE else groups
    if last["groups_clipped"] != expected:
        raise RuntimeError(f"{case.name}: {last['groups_clipped']} of {groups} groups were clipped")


def _hear(event: Any, measurements: Any, metadata: Any, last: Any) -> None:
    if event[-1] == "stop":
        last.update(measurements)


def _peers(model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
    """Those that are installed."""
    parameters = list(model.parameters())
    with contextlib.suppress(ImportError):
        smartclip: Any = importlib.import_module("smartclip")
        for scope in ("global", "per_param"):
            clipper = smartclip.AutoClip(scope=scope, warmup_steps=0, min_history=1)
            name = f"smartclip: AutoClip auto {scope}"
            yield name, lambda clipper=clipper: smartclip.apply(model, clipper)
        agc = smartclip.AGC(scope="per_param", exclude_bias_bn=False)
        yield "smartclip: AGC per_param", lambda: smartclip.apply(model, agc)
    with contextlib.suppress(ImportError):
        timm: Any = importlib.import_module("timm.utils.agc")
        yield "timm: adaptive_clip_grad (per unit)", lambda: timm.adaptive_clip_grad(parameters)
    with contextlib.suppress(ImportError):
        zclip = importlib.import_module("zclip").ZClip()
        yield "zclip: ZClip", lambda: zclip.step(model)
    with contextlib.suppress(ImportError):
        autoclip: Any = importlib.import_module("autoclip.torch")
        quantile = autoclip.QuantileClip(parameters, quantile=0.9, history_length=WINDOW)
        yield "autoclip: QuantileClip", quantile.step
