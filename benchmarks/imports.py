"""What importing a package costs, in a fresh process that has numpy already."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.table import print_table
from benchmarks.timing import Result

PEER = "logging.config"
OURS = ("telemetry", "clipping", "regularizers", "handlers")
LIMIT_SECONDS = 0.15
PROGRAM = """
import time, numpy
begun = time.perf_counter_ns()
import {module}
print(time.perf_counter_ns() - begun)
"""


def run(rounds: int) -> None:
    modules = (*OURS, PEER)
    samples: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(max(3, rounds // 15)):
        for module in modules:
            samples[module].append(_import_ns(module))
    results = [Result(module, samples[module]) for module in modules]
    title = f"imports, wall time; ours are promised in {LIMIT_SECONDS * 1e9:,.0f} ns"
    print_table(title, results, PEER, [])


def _import_ns(module: str) -> float:
    program = PROGRAM.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return float(done.stdout)
