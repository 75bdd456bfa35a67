"""What a training loop pays for all sinks at once while each one's other end is bad.

A loop of steps of about 5 ms without a handler, then with all sinks for each kind of bad end. A
step is some 150 products of small matrices, each of which lets go of the interpreter and wants it
back: no loop feels more of what the workers do.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.bad_ends import KINDS
from benchmarks.sinks_process import BARE, Loop, is_whole, measure_loops
from benchmarks.table import Bound, print_table
from benchmarks.training_steps import SIZE

STEPS = 2000
QUICK_STEPS = 50
STEP_SECONDS = 0.005
LIMIT = 1.15


def run(rounds: int) -> None:
    steps, kinds = (STEPS, KINDS) if is_whole(rounds) else (QUICK_STEPS, KINDS[:1])
    work = products()
    loops = {BARE: Loop(steps, work)}
    loops |= {title(kind): Loop(steps, work, ends=kind) for kind in kinds}
    results = measure_loops(loops, rounds)
    bounds = [Bound(title(kind), BARE, LIMIT) for kind in kinds]
    print_table(
        f"All sinks at once, one of {steps} training steps (wall time)", results, BARE, bounds
    )


def title(kind: str) -> str:
    return f"trainbus: all sinks, other ends {kind}"


def products() -> int:
    """How many products of matrices make a step."""
    matrix = np.ones((SIZE, SIZE), np.float32)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        for _ in range(20):
            np.matmul(matrix, matrix)
        taken.append((time.perf_counter() - began) / 20)
    return max(1, round(STEP_SECONDS / min(taken)))
