"""What memory a place that stays down costs: events wait for it, so many and no more.

Each sink in a process of its own, which is also this file: ``python -m benchmarks.sinks_memory ID
ADDRESSES``.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import telemetry
from benchmarks.sinks_process import bad_ends, environment, is_whole
from benchmarks.sinks_training import attach_all

IDS = ("redis", "mlflow", "webhook-json", "opentelemetry", "datadog-api", "prometheus-push")
QUEUE = 10_000
EMITTED = (QUEUE, 5 * QUEUE, 10 * QUEUE)
HEADER = ("", *(f"{count:,} events" for count in EMITTED))


def run(rounds: int) -> None:
    ids = IDS if is_whole(rounds) else IDS[:1]
    print("A place that stays down, MB of memory after so many events (bound: the queue)")
    rows = [HEADER, *((f"trainbus: {one}", *map(_megabytes, _measured(one))) for one in ids)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        shown = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  " + "  ".join((name.ljust(widths[0]), *shown)))
    print(flush=True)


def _measured(one: str) -> list[int]:
    with TemporaryDirectory() as folder, bad_ends("refused", folder) as addresses:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sinks_memory", one, addresses],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=True,
        )
    grown: list[int] = json.loads(done.stdout.splitlines()[-1])
    return grown


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def main() -> None:
    one, addresses = sys.argv[1:]
    attach_all(json.loads(addresses), Path.cwd(), only=one, queue_size=QUEUE)
    grown: list[int] = []
    emitted = 0
    gc.collect()
    before = _resident()
    for count in EMITTED:
        for step in range(emitted, count):
            measurements = {"loss": 1 / (step + 1), "lr": 2e-4, "grad_norm": 1.0}
            telemetry.execute(("training", "step"), measurements, {"step": step})
        emitted = count
        grown.append(_resident() - before)
    print(json.dumps(grown), flush=True)
    os._exit(0)  # nobody waits for what is down


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
