"""Every sink at once, each other end bad: the run ends, and the file beside them is whole."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STEPS = 300
CHECKPOINTS = 3  # one in a hundred steps
QUEUE = 100
FLUSH_TIMEOUT = 2.0
MARGIN = 20.0
"""Seconds for what a busy machine and the interpreter's own end take."""

LOCAL = {"jsonl", "console", "memory", "blinker", "tensorboard", "wandb", "trackio"}
EVERYTHING = 3 * STEPS + CHECKPOINTS  # of each step the start and the stop of a span, and the step
MEASURED = 2 * STEPS + CHECKPOINTS  # of the default metrics none is of a start
CALLING = {  # those that call somebody who can refuse, and how many events they take
    "datadog-api": MEASURED,
    "mlflow": MEASURED,
    "prometheus-push": MEASURED,
    "opentelemetry": EVERYTHING + CHECKPOINTS,  # of which it makes a metric and a log record
    "webhook-json": EVERYTHING,
    "webhook-slack": CHECKPOINTS,
    "redis": EVERYTHING,
}
SILENT = {"datadog-udp", "datadog-unix", "prometheus-pull"}  # a datagram is not answered


@pytest.fixture
def environment(tmp_path):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB", "MLFLOW", "DD_", "DATADOG", "OTEL", "TRACKIO", "REDIS"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def ends(tmp_path, environment):
    """Start the other ends in a process of their own, and give their addresses."""
    started = []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bad_ends", kind, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process.stdout.readline()

    yield start
    for process in started:
        process.communicate()


@pytest.mark.parametrize("kind", ["hung", "refused", "closed", "error", "deaf"])
def test_a_run_with_bad_ends_ends_and_says_what_it_lost(
    tmp_path, environment, ends, read, steps, kind
):
    addresses = ends(kind)
    common = json.dumps({"queue_size": QUEUE, "flush_timeout": FLUSH_TIMEOUT})
    program = ["-m", "benchmarks.sinks_training", str(STEPS), "10", addresses, common]
    done = subprocess.run(
        [sys.executable, "-W", "error", *program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    ended = time.monotonic()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    # They have one deadline in common: what hangs is not waited for one after the other.
    assert ended - report["loop_ended"] < FLUSH_TIMEOUT + MARGIN
    assert set(report["handlers"]) == LOCAL | set(CALLING) | SILENT
    assert report["attached"] == report["handlers"], "a sink gave up, for what passes by itself"

    records = read(tmp_path / "metrics.jsonl")
    of = {
        event: [one for one in records if one["event"] == event]
        for event in (
            *("training.step", "custom_loss.start", "custom_loss.stop", "training.checkpoint"),
            "telemetry.handler.overflow",
        )
    }
    for event in ("training.step", "custom_loss.start", "custom_loss.stop"):
        assert steps(of[event]) == list(range(STEPS))
    losses = [1 / (step + 1) for step in range(STEPS)]
    assert [one["measurements"]["loss"] for one in of["training.step"]] == losses
    assert [one["measurements"]["loss_total"] for one in of["custom_loss.stop"]] == losses
    names = [one["metadata"]["checkpoint_name"] for one in of["training.checkpoint"]]
    assert names == ["c0", "c100", "c200"]

    lost = Counter()
    for one in of["telemetry.handler.overflow"]:
        lost[one["metadata"]["handler_id"]] += one["measurements"]["dropped"]
    told = set(re.findall(r"^Handler '([^']+)'", done.stderr, re.MULTILINE))
    assert told >= set(CALLING)
    # Nothing can have arrived: all is lost, and counted once, announcements aside. Of what
    # OpenTelemetry has taken, a start is nothing, and a stop a span and a metric: where the queue
    # lost one of the two, that is one less or one more.
    counted = {handler_id: lost[handler_id] for handler_id in CALLING}
    halves = counted["opentelemetry"] - CALLING["opentelemetry"]
    assert abs(halves) <= STEPS
    assert counted == {**CALLING, "opentelemetry": CALLING["opentelemetry"] + halves}
    # Nobody reads from that socket: when its buffer is full, nothing more gets in.
    assert lost["datadog-unix"] > 0

    # Of OpenTelemetry each of three endpoints is a place of its own.
    down = re.findall(r"^Handler '([^']+)' cannot reach (.+?) \(", done.stderr, re.MULTILINE)
    assert sorted(set(down)) == sorted(down), "announced more than once"
