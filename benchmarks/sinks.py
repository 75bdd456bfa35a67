"""What a training loop pays for all sinks at once while each one's other end is bad.

Each timing is a process of its own, because workers of one would go on into the next: a loop of
steps of about 5 ms without a handler, then with all sinks for each kind of bad end. The other ends
are a further process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.bad_ends import KINDS
from benchmarks.sinks_training import SIZE
from benchmarks.table import Bound, print_table
from benchmarks.timing import Result

ROOT = Path(__file__).parent.parent
STEPS = 2000
QUICK_STEPS = 50
STEP_SECONDS = 0.005
BARE = "no handler"
LIMIT = 1.15
ROUNDS_OF_ONE = 50
"""A timing takes seconds where those of other benchmarks take milliseconds."""


def run(rounds: int) -> None:
    whole = rounds >= ROUNDS_OF_ONE
    steps, kinds = (STEPS, KINDS) if whole else (QUICK_STEPS, KINDS[:1])
    work = _work()
    samples: dict[str, list[float]] = {name: [] for name in (BARE, *map(_title, kinds))}
    for number in range(max(1, rounds // ROUNDS_OF_ONE)):
        order = [BARE, *kinds]
        for kind in order[number % len(order) :] + order[: number % len(order)]:
            seconds = _train(steps, work, kind)
            samples[_title(kind)].append(seconds / steps * 1e9)
    results = [Result(name, values) for name, values in samples.items()]
    bounds = [Bound(_title(kind), BARE, LIMIT) for kind in kinds]
    print_table(
        f"All sinks at once, one of {steps} training steps (wall time)", results, BARE, bounds
    )


def _title(kind: str) -> str:
    return kind if kind == BARE else f"trainbus: all sinks, other ends {kind}"


def _work() -> int:
    """How many products of matrices make a step."""
    matrix = np.ones((SIZE, SIZE), np.float32)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        for _ in range(20):
            np.matmul(matrix, matrix)
        taken.append((time.perf_counter() - began) / 20)
    return max(1, round(STEP_SECONDS / min(taken)))


def _train(steps: int, work: int, kind: str) -> float:
    with TemporaryDirectory() as folder, _ends(kind, folder) as addresses:
        command = [sys.executable, "-m", "benchmarks.sinks_training", str(steps), str(work)]
        if addresses:
            command += [addresses, "{}"]
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(folder),
            capture_output=True,
            text=True,
            check=True,
        )
    seconds: float = json.loads(done.stdout.splitlines()[-1])["loop"]
    return seconds


@contextmanager
def _ends(kind: str, folder: str) -> Iterator[str]:
    if kind == BARE:
        yield ""
        return
    command = [sys.executable, "-m", "benchmarks.bad_ends", kind, folder]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=_environment(folder), stdin=pipe, stdout=pipe, text=True
    ) as process:
        yield process.stdout.readline() if process.stdout else ""


def _environment(folder: str) -> dict[str, str]:
    # One thread: the loop and the workers are what shares the processor, not the matrices.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT), "HOME": folder}
