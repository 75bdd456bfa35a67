"""Training loops with sinks, each in a process of its own, and the other ends of the sinks.

A process of its own, because workers of one loop would go on into the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import Result

ROOT = Path(__file__).parent.parent
BARE = "no handler"
ROUNDS_OF_ONE = 50
"""A timing takes seconds where those of other benchmarks take milliseconds."""

SHOWN = 5000
"""Characters of what a loop that failed has to say."""


@dataclass(frozen=True)
class Loop:
    """A training loop.

    Attributes:
        steps: How many it has.
        work: How much a step does, as `benchmarks.training_steps` understands it.
        step: Which of its steps.
        ends: How the other ends of all sinks are, "" for a loop without a handler.
        only: The one sink that is attached; "" for all.
    """

    steps: int
    work: int
    step: str = "products"
    ends: str = ""
    only: str = ""

    def seconds(self) -> float:
        """Run it."""
        with TemporaryDirectory() as folder, bad_ends(self.ends, folder) as addresses:
            options = ["--step", self.step, "--only", self.only]
            program = ["-m", "benchmarks.sinks_training", str(self.steps), str(self.work)]
            if addresses:
                program += [addresses, "{}"]
            done = subprocess.run(
                [sys.executable, *program, *options],
                cwd=folder,
                env=environment(folder),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{self} ended with {done.returncode}:\n{done.stderr[-SHOWN:]}")
        seconds: float = json.loads(done.stdout.splitlines()[-1])["loop"]
        return seconds


def is_whole(rounds: int) -> bool:
    """Whether there is time for whole loops."""
    return rounds >= ROUNDS_OF_ONE


def measure_loops(loops: Mapping[str, Loop], rounds: int) -> list[Result]:
    """Run every loop once a round, in an order that rotates; nanoseconds of a step of each."""
    names: Sequence[str] = list(loops)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(max(1, rounds // ROUNDS_OF_ONE)):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            samples[name].append(loops[name].seconds() / loops[name].steps * 1e9)
    return [Result(name, values) for name, values in samples.items()]


@contextmanager
def bad_ends(kind: str, folder: str) -> Iterator[str]:
    """The addresses of other ends of a kind, as JSON, while they live; "" if there are none."""
    if not kind:
        yield ""
        return
    command = [sys.executable, "-m", "benchmarks.bad_ends", kind, folder]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment(folder), stdin=pipe, stdout=pipe, text=True
    ) as process:
        yield process.stdout.readline() if process.stdout else ""


def environment(folder: str) -> dict[str, str]:
    """That of a process in a folder of its own."""
    # One thread: the loop and the workers are what shares the processor, not the matrices.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT), "HOME": folder}
