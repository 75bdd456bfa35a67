"""What reading a log into a frame costs, beside pandas' own reader and its normalisation.

Each reader in a process of its own, which is also this file: ``python -m
benchmarks.viewer_reading READER FILE``. Importing libraries is no part of the times.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import exp
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson

from benchmarks.table import Bound, print_table, verdict
from benchmarks.timing import Result

LINES = 1_000_000
QUICK_LINES = 20_000
WHOLE = 100
"""Rounds from which on the whole file is read, three times."""
LIMIT = 0.15
PEER = "pandas.read_json, json_normalize"
OURS = "trainbus: read_jsonl"


class Run(NamedTuple):
    wall: float
    cpu: float
    peak: int


def run(rounds: int) -> None:
    lines, times = (LINES, 3) if rounds >= WHOLE else (QUICK_LINES, 1)
    with TemporaryDirectory() as folder:
        plain = Path(folder, "ours.jsonl")
        plain.write_bytes(b"".join(_ours(lines)))
        packed = Path(folder, "ours.jsonl.gz")
        packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
        foreign = Path(folder, "foreign.jsonl")
        foreign.write_bytes(b"".join(_foreign(lines)))
        contenders = {
            PEER: ("pandas", plain),
            OURS: ("ours", plain),
            f"{OURS}, gzipped": ("ours", packed),
            f"{OURS}, another program's": ("ours", foreign),
        }
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        for _ in range(times):
            for name, contender in contenders.items():
                runs[name].append(_measured(*contender))
    for clock in ("wall", "cpu"):
        results = [
            Result(name, [getattr(one, clock) * 1e9 / lines for one in of_name])
            for name, of_name in runs.items()
        ]
        title = f"Reading {lines:,} lines, {clock} time a line"
        print_table(title, results, PEER, [Bound(OURS, PEER, LIMIT)])
    print("Most memory of the process, MB")
    most = {name: max(one.peak for one in of_name) for name, of_name in runs.items()}
    for name, peak in most.items():
        bound = f"  less than pandas {verdict(holds=peak < most[PEER])}" if name == OURS else ""
        print(f"  {name:<40} {peak / 1e6:8,.0f}{bound}")
    print(flush=True)


def _measured(reader: str, path: Path) -> Run:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.viewer_reading", reader, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return Run(*json.loads(done.stdout))


def _ours(lines: int) -> Iterator[bytes]:
    """Four records a step, as the handler ``jsonl`` writes them."""
    dice = Random(0)
    for number in range(lines):
        step = 1 + number // 4
        moment = f"2026-11-21T10:{step // 60_000 % 60:02}:{step // 1000 % 60:02}"
        metadata = {"run_id": "r1", "attempt": 1, "epoch": 1 + step // 10_000, "step": step}
        event, measurements, more = _records(step, dice)[number % 4]
        record = {
            "timestamp": f"{moment}.{step % 1000 * 1000:06}Z",
            "event": event,
            "measurements": measurements,
            "metadata": metadata | more,
        }
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _records(step: int, dice: Random) -> list[tuple[str, dict[str, float], dict[str, Any]]]:
    norm, loss = dice.random(), 2.5 * exp(-step / 1e5) + dice.random() / 10
    clip = {"grad_norm": norm, "clipped_grad_norm": norm, "scale": 1.0, "threshold": 1.0}
    l2 = {"duration": 2345, "value": norm, "contribution": norm / 10}
    timing = {"step_duration": 5_000_000, "batch_size": 64, "samples_per_second": 12_800.0}
    span = {
        "span_id": f"{dice.getrandbits(64):016x}",
        "parent_id": None,
        "trace_id": "0" * 15 + "1",
    }
    return [
        ("training.step", {"loss": loss, "lr": 2e-4}, {"total_steps": 250_000}),
        ("smartclip.clip.stop", clip, {"algo": "autoclip", "telemetry_span_context": span}),
        ("regularizer.compute.stop", l2, {"regularizer_name": "l2", "weight": 0.1}),
        ("training.timing", timing, {}),
    ]


def _foreign(lines: int) -> Iterator[bytes]:
    """A record a step, as the trainers of others write them."""
    dice = Random(0)
    for step in range(1, lines + 1):
        metrics = {"train": {"loss": dice.random(), "lr": 2e-4}, "perf/step_ms": 5.0}
        record = {"step": step, "epoch": 1, "time": 1.79e9 + step, "metrics": metrics}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _pandas(path: str) -> Callable[[], object]:
    import pandas as pd  # noqa: PLC0415 -- only in the process that is timed

    def read() -> object:
        frame = pd.read_json(path, lines=True)
        measurements = pd.json_normalize(frame.pop("measurements").tolist())
        metadata = pd.json_normalize(frame.pop("metadata").tolist())
        return pd.concat([frame, metadata, measurements], axis=1)

    return read


def _read_jsonl(path: str) -> Callable[[], object]:
    import duckdb  # noqa: F401, PLC0415 -- imported before the clock starts
    import pandas as pd  # noqa: F401, PLC0415 -- as above

    from telemetry.viewer.frames.frame import read_jsonl  # noqa: PLC0415 -- as above

    return lambda: read_jsonl(path)


def main() -> None:
    reader, path = sys.argv[1:]
    read = {"pandas": _pandas, "ours": _read_jsonl}[reader](path)
    wall, cpu = time.perf_counter(), time.process_time()
    read()
    taken = (time.perf_counter() - wall, time.process_time() - cpu)
    print(json.dumps([*taken, _most_memory()]))


def _most_memory() -> int:
    """Not `resource.getrusage`, in which a child begins with what its parent has."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
