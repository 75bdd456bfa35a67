"""What a training loop pays for each sink by itself, while its other end hangs."""

from __future__ import annotations

from benchmarks.sinks import LIMIT, QUICK_STEPS, products
from benchmarks.sinks_process import BARE, Loop, is_whole, measure_loops
from benchmarks.sinks_training import IDS
from benchmarks.table import Bound, print_table

STEPS = 500
QUICK = ("tensorboard",)


def run(rounds: int) -> None:
    steps, ids = (STEPS, IDS) if is_whole(rounds) else (QUICK_STEPS, QUICK)
    work = products()
    loops = {BARE: Loop(steps, work)}
    loops |= {_title(one): Loop(steps, work, ends="hung", only=one) for one in ids}
    results = measure_loops(loops, rounds)
    bounds = [Bound(_title(one), BARE, LIMIT) for one in ids]
    name = f"One sink, one of {steps} training steps (wall time)"
    print_table(name, results, BARE, bounds)


def _title(one: str) -> str:
    return f"trainbus: {one}"
