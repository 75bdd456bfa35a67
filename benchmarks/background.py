"""What the emitter of an event waits for when a worker thread delivers it.

That is the queue's part of every sink that sends over a network. The worker is idle when a timing
begins, and writes to the null device meanwhile: what it takes from the caller is counted as well.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import handlers
from benchmarks.table import Most, print_table
from benchmarks.timing import WALL_NS, Contender, measure
from telemetry import Registry, SpanContext

EVENT = ("training", "step")
STEP = {
    "measurements": {"loss": 2.5432, "lr": 0.0002},
    "metadata": {"step": 1, "total_steps": 1000},
}
CLIP = {
    "measurements": {f"measurement_{n}": n / 7 for n in range(8)},
    "metadata": {"span": SpanContext(1, None, 1), **{f"key_{n}": f"value {n}" for n in range(9)}},
}
PEER = "deque.append of two copies"
LIMIT_NS = 3_000
SMALL, LARGE = "trainbus: 2 values, 2 keys", "trainbus: 8 values, 10 keys"


def run(rounds: int) -> None:
    kept: deque[Any] = deque(maxlen=10_000)
    queue: SimpleQueue[Any] = SimpleQueue()
    entry = "(event, dict(measurements), dict(metadata))"
    names = {**STEP, "event": EVENT}
    with ExitStack() as stack:
        contenders = [
            Contender(PEER, f"append({entry})", {**names, "append": kept.append}),
            Contender(
                "SimpleQueue.put of two copies", f"put({entry})", {**names, "put": queue.put}
            ),
            stack.enter_context(_ours(SMALL, STEP)),
            stack.enter_context(_ours(LARGE, CLIP)),
        ]
        results = measure(contenders, rounds, WALL_NS)
    most = [Most(SMALL, LIMIT_NS), Most(LARGE, LIMIT_NS)]
    print_table("Hand-over to a worker, one event (wall time)", results, PEER, most)


@contextmanager
def _ours(name: str, values: dict[str, Any]) -> Iterator[Contender]:
    registry = Registry()
    sink = handlers.attach("jsonl", path=os.devnull, background=True, registry=registry)
    names = {**values, "event": EVENT, "execute": registry.execute, "flush": sink.flush}
    with sink:
        yield Contender(name, "execute(event, measurements, metadata)", names, setup="flush()")
