"""What the training of a small network pays for all sinks at once while their ends are bad.

The same as the benchmark ``sinks``, with a step as training has them: a few large kernels.
"""

from __future__ import annotations

from benchmarks.sinks import LIMIT, QUICK_STEPS, title
from benchmarks.sinks_process import BARE, Loop, is_whole, measure_loops
from benchmarks.table import Bound, print_table

STEPS = 1000
KINDS = ("hung", "error")
EXAMPLES = 160


def run(rounds: int) -> None:
    steps, kinds = (STEPS, KINDS) if is_whole(rounds) else (QUICK_STEPS, KINDS[:1])
    loops = {BARE: Loop(steps, EXAMPLES, step="torch")}
    loops |= {title(kind): Loop(steps, EXAMPLES, step="torch", ends=kind) for kind in kinds}
    results = measure_loops(loops, rounds)
    bounds = [Bound(title(kind), BARE, LIMIT) for kind in kinds]
    name = f"All sinks at once, one of {steps} steps of an MLP in torch (wall time)"
    print_table(name, results, BARE, bounds)
