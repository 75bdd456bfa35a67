"""What alert rules cost the loop that they watch, and what they keep of a million events."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import count, cycle
from typing import Any

from benchmarks.table import Most, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry import EventName, Registry, alerts
from telemetry.alerts import Rule

STEP: EventName = ("training", "step")
RL: EventName = ("rl", "step")
METADATA = {"run_id": "a", "attempt": 1, "epoch": 1, "step": 1, "total_steps": 1000}
NOTHING = "a handler that does nothing"
LIMITS = "trainbus: ten limits"
MIXED = "trainbus: ten rules of all kinds"
NEGATIVE = "trainbus: the ten, negative values"
NOISY = "trainbus: the ten, noisy values"
LIMIT_NS = 5_000
EVENTS = 1_000_000
QUICK_EVENTS = 50_000
FULL_ROUNDS = 100
"""From which number of rounds on it is a million."""

TEN_LIMITS = tuple(
    Rule(f"{name} {limit}", f"training.step.{name}", above=limit)
    for name in ("loss", "lr", "grad_norm", "accuracy", "perplexity")
    for limit in (100.0, 1000.0)
)
TEN_OF_ALL_KINDS = (
    Rule("nonfinite", "training.step.loss", nonfinite=True),
    Rule("spike", "training.step.loss", spike=3.0, clear=1.5),
    Rule("explosion", "training.step.grad_norm", spike=10.0),
    Rule("drop", "training.step.accuracy", drop=0.5),
    Rule("above", "training.step.perplexity", above=1000.0, clear=500.0),
    Rule("in a row", "training.step.grad_norm", above=100.0, for_steps=3),
    Rule("outside", "training.step.lr", outside=(0.0, 1.0)),
    Rule("share", "training.step.accuracy", below=-10.0, share=0.5),
    Rule("of one run", "training.step.loss", above=100.0, where={"run_id": "a"}),
    Rule("stalled", "training.step", stalled=600.0),
)


def run(rounds: int) -> None:
    _print_costs(rounds)
    _print_memory(EVENTS if rounds >= FULL_ROUNDS else QUICK_EVENTS)


def _print_costs(rounds: int) -> None:
    contenders = [
        _with_rules(NOTHING, ()),
        _with_rules("trainbus: one limit", TEN_LIMITS[:1]),
        _with_rules(LIMITS, TEN_LIMITS),
        _with_rules(MIXED, TEN_OF_ALL_KINDS),
        _with_rules(NEGATIVE, TEN_OF_ALL_KINDS, steps=_negative_steps(1000)),
        _with_rules(NOISY, TEN_OF_ALL_KINDS, steps=_steps(1000, noise=2.0)),
        _with_rules("trainbus: TRAINING_RULES", alerts.TRAINING_RULES),
        _with_rules("trainbus: RL_RULES, on rl.step", alerts.RL_RULES, RL, _rl_steps(1000)),
    ]
    results = measure(contenders, rounds, THREAD_CPU_NS)
    bounds = [Most(name, LIMIT_NS) for name in (LIMITS, MIXED, NEGATIVE, NOISY)]
    print_table("alerts, one step event (thread CPU time)", results, NOTHING, bounds)


def _with_rules(
    name: str,
    rules: Sequence[Rule],
    event: EventName = STEP,
    steps: Sequence[dict[str, Any]] = (),
) -> Contender:
    registry = Registry()
    if rules:
        alerts.attach(rules, registry=registry)
    else:
        registry.attach("nothing", event, lambda *_: None)
    names = {
        "execute": registry.execute,
        "event": event,
        "steps": cycle(steps or _steps(1000)),
        "metadata": METADATA,
    }
    return Contender(name, "execute(event, next(steps), metadata)", names)


def _steps(number: int, noise: float = 1.0) -> list[dict[str, Any]]:
    """Steps of a training, whose values swing by so many times what is usual."""
    values = random.Random(0)
    return [
        {
            "loss": values.lognormvariate(0.5, 0.2 * noise),
            "lr": 2e-4,
            "grad_norm": values.lognormvariate(0.0, 0.4 * noise),
            "accuracy": min(1.0, values.gauss(0.7, 0.05 * noise)),
            "perplexity": values.lognormvariate(2.0, 0.2 * noise),
        }
        for _ in range(number)
    ]


def _negative_steps(number: int) -> list[dict[str, Any]]:
    """Those of a loss below zero, such as that of a policy: a drop or a spike is none of it."""
    watched = ("loss", "grad_norm", "accuracy")
    return [step | {name: -step[name] for name in watched} for step in _steps(number)]


def _rl_steps(number: int) -> list[dict[str, Any]]:
    noise = random.Random(0)
    return [
        {
            "kl_divergence": noise.uniform(0.0, 0.04),
            "clip_fraction": noise.uniform(0.12, 0.3),
            "explained_variance": noise.uniform(0.6, 0.9),
            "entropy": noise.gauss(1.5, 0.1),
            "reward_mean": noise.gauss(5.0, 1.0),
        }
        for _ in range(number)
    ]


def _print_memory(events: int) -> None:
    """All that the rules hold: a hundred runs that go on, and others that come and go."""
    registry = Registry()
    tracemalloc.start()
    with alerts.attach([*TEN_OF_ALL_KINDS, *alerts.TRAINING_RULES], registry=registry):
        before = tracemalloc.get_traced_memory()[0]
        print(f"trainbus: alerts, what {len(TEN_OF_ALL_KINDS)} rules and TRAINING_RULES hold")
        runs = _runs()
        values = cycle(_steps(1000))
        for number in range(1, events + 1):
            registry.execute(STEP, next(values), {"run_id": next(runs)})
            if number % (events // 5) == 0:
                held = (tracemalloc.get_traced_memory()[0] - before) / 2**20
                print(f"  {number:>9,} events  {number // 20:>7,} other runs  {held:6.1f} MiB")
    tracemalloc.stop()
    print(flush=True)


def _runs() -> Iterator[str]:
    for number in count(1):
        yield f"other {number}" if number % 20 == 0 else f"run {number % 100}"
