"""What `telemetry.track` adds to each batch of a loop: drawing one from an endless source."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import repeat

import numpy as np
from tqdm import tqdm

import telemetry
from benchmarks.table import Most, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry import Registry

BARE = "bare loop"
UNHEARD, HEARD = "track, unheard", "track, timing heard"
UNHEARD_NS, HEARD_NS = 3_000, 10_000
BATCH = {"x": np.zeros((32, 8)), "y": np.zeros(32)}
TIMING = ("training", "timing")


def run(rounds: int) -> None:
    heard = Registry()
    heard.attach("listener", TIMING, _hear)
    contenders = [
        _draws(BARE, repeat(BATCH)),
        _draws(UNHEARD, iter(telemetry.track(repeat(BATCH), epoch=1, registry=Registry()))),
        _draws(HEARD, iter(telemetry.track(repeat(BATCH), epoch=1, registry=heard))),
        _draws("tqdm", iter(tqdm(repeat(BATCH), file=io.StringIO()))),
    ]
    results = measure(contenders, rounds, THREAD_CPU_NS)
    bounds = [Most(UNHEARD, UNHEARD_NS), Most(HEARD, HEARD_NS)]
    print_table("loops, each batch a step (thread CPU time)", results, BARE, bounds)


def _draws(name: str, batches: Iterator[object]) -> Contender:
    return Contender(name, "next(batches)", {"batches": batches})


def _hear(event: object, measurements: object, metadata: object, config: object) -> None:
    pass
