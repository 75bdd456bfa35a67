"""What a collector costs: timing an operation beside a bare span, and the memory of a long run."""

from __future__ import annotations

import tracemalloc

from benchmarks.table import Bound, print_table
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry import MetricsCollector, Registry

PREFIX = ("performance", "operation")
NAMES = [(*PREFIX, end) for end in ("start", "stop", "exception")]
METADATA = {"run_id": "run_123", "operation": "forward_backward"}
BARE = "bare span"
OURS = "trainbus: collector.time_operation"
LIMIT = 1.3
EVENTS = 1_000_000
QUICK_EVENTS = 20_000
ROUNDS_OF_ALL = 50


def run(rounds: int) -> None:
    for count in (0, 1):
        results = measure(_contenders(count), rounds, THREAD_CPU_NS)
        title = f"timing an operation, {count} handler{'s' if count == 0 else ''} (thread CPU time)"
        print_table(title, results, BARE, [Bound(OURS, BARE, LIMIT)])
    _print_memory(EVENTS if rounds >= ROUNDS_OF_ALL else QUICK_EVENTS)


def _contenders(count: int) -> list[Contender]:
    registry = Registry()
    if count:
        registry.attach_many("listener", NAMES, lambda *_: None)
    # One for each: what a full history gives up costs more where it is more than a duration.
    timing, training = (MetricsCollector("run_123", registry=registry) for _ in range(2))
    names = {"prefix": PREFIX, "metadata": METADATA, "span": registry.span}
    return [
        Contender(BARE, "with span(prefix, metadata): pass", names),
        Contender(
            OURS,
            "with time_operation('forward_backward'): pass",
            {"time_operation": timing.time_operation},
        ),
        Contender(
            "trainbus: collector.collect_training_metrics",
            "collect(0.5, 2.3, 1e-4, 100)",
            {"collect": training.collect_training_metrics},
        ),
    ]


def _print_memory(events: int) -> None:
    collector = MetricsCollector("run_123", registry=Registry())
    tracemalloc.start()
    print("memory of a collector, by tracemalloc")
    done = 0
    for mark in (events // 50, events // 10, events):
        for step in range(done, mark):
            if step % 2:
                collector.collect_training_metrics(step / 7, step / 3, step * 1e-9, step)
            else:
                with collector.time_operation(f"operation_{step % 5000}"):
                    pass
        done = mark
        held, peak = tracemalloc.get_traced_memory()
        print(
            f"  after {done:>9,} events: {held / 2**20:5.1f} MiB held, {peak / 2**20:5.1f} MiB at "
            f"most, {len(collector.metrics_history):,} records"
        )
    tracemalloc.stop()
    print(flush=True)
