"""What a custom loss costs on torch's CPU tensors, beside a sum and gradients written by hand.

Log-probabilities of 4096 x 64 in float32, a mean negative log-likelihood and five penalties; one
thread. "by hand, in torch" writes the formulas out; "by hand, our penalties" calls ours. The
reference with tracking is what is done where nothing is shared: the loss is evaluated, then each
term once more for its gradient's norm, and then all of them once more for that of the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch

import telemetry
from benchmarks.table import Bound, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from regularizers import CustomLoss, RegularizerSpec, penalties

Tensor: TypeAlias = torch.Tensor
Function: TypeAlias = Callable[[Any, Tensor], Any]
Terms: TypeAlias = dict[str, tuple[float, Function]]

LARGE = "4096 x 64"
SHAPES = {LARGE: (4096, 64), "4 x 4, the fixed cost": (4, 4)}
PLAIN, OURS = "by hand, in torch", "by hand, our penalties"
AGAIN = "each evaluated again"
LOSS, LOSS_OF_PLAIN = "CustomLoss", "CustomLoss of torch functions"
TRACKED, TRACKED_PLAIN = "CustomLoss, tracked", "CustomLoss of torch functions, tracked"
AGAIN_PLAIN = f"{AGAIN}, torch functions"


def run(rounds: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for title, shape in SHAPES.items():
            for heard in (False, True):
                _run_on(title, shape, max(5, rounds // 3), heard=heard)
    finally:
        torch.set_num_threads(threads)


def _run_on(title: str, shape: tuple[int, int], rounds: int, *, heard: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).log_softmax(-1).requires_grad_()
    data = {
        "tokens": torch.randint(shape[1], (shape[0], 1)),
        "reference": torch.randn(shape).log_softmax(-1),
    }
    contenders: dict[str, Callable[[], Any]] = {
        PLAIN: partial(_written_out, data, x),
        OURS: partial(_summed, PENALTIES, data, x),
        LOSS: partial(_loss(PENALTIES), data, x),
        LOSS_OF_PLAIN: partial(_loss(FUNCTIONS), data, x),
        AGAIN: partial(_evaluated_again, PENALTIES, data, x),
        AGAIN_PLAIN: partial(_evaluated_again, FUNCTIONS, data, x),
        TRACKED: partial(_loss(PENALTIES, track=True), data, x),
        TRACKED_PLAIN: partial(_loss(FUNCTIONS, track=True), data, x),
    }
    _check(contenders)
    listening = telemetry.attach("benchmark", telemetry.ALL, _hear) if heard else nullcontext()
    with listening:
        timed = [Contender(name, "call()", {"call": call}) for name, call in contenders.items()]
        results = measure(timed, rounds, THREAD_CPU_NS)
    heading = f"a custom loss on torch, {title}, {'a' if heard else 'no'} handler hears it"
    bounds = [bound for bound in BOUNDS if title == LARGE and not (heard and bound in UNHEARD)]
    print_table(f"{heading} (thread CPU time, {rounds} rounds)", results, PLAIN, bounds)


def _nll(data: Any, x: Tensor) -> Any:
    return -x.gather(-1, data["tokens"]).mean()


FUNCTIONS: Terms = {
    "l1": (0.01, lambda _, x: x.abs().sum()),
    "l2": (0.001, lambda _, x: (x * x).sum()),
    "entropy": (0.02, lambda _, x: -(x.exp() * x).sum()),
    "kl": (0.03, lambda data, x: (x.exp() * (x - data["reference"])).sum()),
    "consistency": (0.0005, lambda data, x: ((x - data["reference"]) ** 2).sum()),
}
PENALTIES: Terms = {
    "l1": (0.01, penalties.l1),
    "l2": (0.001, penalties.l2),
    "entropy": (0.02, penalties.entropy),
    "kl": (0.03, partial(penalties.kl_divergence, reference="reference")),
    "consistency": (0.0005, partial(penalties.consistency, reference="reference")),
}


def _written_out(data: Any, x: Tensor) -> Any:
    reference = data["reference"]
    return (
        _nll(data, x)
        + 0.01 * x.abs().sum()
        + 0.001 * (x * x).sum()
        + 0.02 * -(x.exp() * x).sum()
        + 0.03 * (x.exp() * (x - reference)).sum()
        + 0.0005 * ((x - reference) ** 2).sum()
    )


def _summed(terms: Terms, data: Any, x: Tensor) -> Any:
    total = _nll(data, x)
    for weight, function in terms.values():
        total = total + weight * function(data, x)
    return total


def _evaluated_again(terms: Terms, data: Any, x: Tensor) -> tuple[Any, Any]:
    loss = _summed(terms, data, x)
    for function in (_nll, *(function for _, function in terms.values())):
        _norm(function, data, x)
    return loss, _norm(partial(_summed, terms), data, x)


def _norm(function: Function, data: Any, x: Tensor) -> Any:
    (gradient,) = torch.autograd.grad(function(data, x), x)
    return torch.linalg.vector_norm(gradient)


def _loss(terms: Terms, *, track: bool = False) -> CustomLoss:
    specs = [RegularizerSpec(function, weight, name) for name, (weight, function) in terms.items()]
    return CustomLoss(_nll, specs, track_grad_norms=track)


def _check(contenders: dict[str, Callable[[], Any]]) -> None:
    """That all compute the same."""
    expected, norm = (number.item() for number in contenders[AGAIN]())
    for name, call in contenders.items():
        result = call()
        loss = result[0] if isinstance(result, tuple) else getattr(result, "loss", result)
        if not math.isclose(loss.item(), expected, rel_tol=1e-5):
            raise RuntimeError(f"{name}: the loss is {loss.item()}, not {expected}")
        found = getattr(result, "total_grad_norm", None)
        if found is not None and not math.isclose(found, norm, rel_tol=1e-4):
            raise RuntimeError(f"{name}: the norm is {found}, not {norm}")


def _hear(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    del event, measurements, metadata, config


UNHEARD = [Bound(LOSS, PLAIN, 1.3), Bound(LOSS, OURS, 1.3), Bound(LOSS_OF_PLAIN, PLAIN, 1.3)]
"""Promised where no handler is attached."""
BOUNDS = [*UNHEARD, Bound(TRACKED, AGAIN, 0.6), Bound(TRACKED_PLAIN, AGAIN_PLAIN, 0.6)]
