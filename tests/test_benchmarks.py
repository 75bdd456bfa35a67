"""The benchmarks run; what they print is for people, and no bound is asserted here."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("name", "peers"),
    [
        ("dispatch", ["bare dispatcher", "blinker", "pyee", "logging", "opentelemetry"]),
        ("spans", ["minimal class", "@contextmanager", "opentelemetry"]),
        ("collector", ["bare span", "<= 1.30", "events", "records"]),
        ("loops", ["bare loop", "tqdm", "<= 3,000 ns"]),
        ("jsonl", ["os.write", "json.dumps", "structlog", "loguru", "python-json-logger"]),
        ("background", ["deque.append", "SimpleQueue.put", "<= 3,000 ns"]),
        ("sinks", ["no handler", "other ends hung"]),
        ("sinks_torch", ["no handler", "other ends hung"]),
        ("sinks_single", ["no handler", "tensorboard"]),
        ("sinks_memory", ["redis", "100,000 events"]),
        ("alerts", ["does nothing", "ten limits", "<= 5,000 ns", "MiB"]),
        ("custom_loss", ["by hand, in torch", "each evaluated again", "tracked"]),
        ("viewer_reading", ["pandas.read_json", "gzipped", "another program's", "<= 0.15", "MB"]),
    ],
)
def test_each_benchmark_prints_ours_beside_its_peers(name, peers):
    done = run_benchmarks(name, "--quick")
    assert done.returncode == 0, done.stderr
    for contender in ["trainbus", *peers]:
        assert contender in done.stdout
    assert "bound" in done.stdout


def test_an_unknown_benchmark_is_refused():
    done = run_benchmarks("dispach")
    assert done.returncode == 2
    assert "dispach" in done.stderr
