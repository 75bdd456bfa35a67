"""Two ranks of one fit: the same run, each with its own losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning.pytorch")

WORKER = Path(__file__).parent / "ddp_worker.py"
ROOT = Path(__file__).resolve().parents[4]


def ranks(folder):
    """What each of two ranks has reported."""
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    own["GLOO_SOCKET_IFNAME"] = "lo"
    done = subprocess.run(
        [sys.executable, WORKER, folder],
        env=own,
        capture_output=True,
        text=True,
        timeout=300,  # both import torch and lightning
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def losses(events, name):
    return [event["loss"] for event in events if event["event"] == name]


def test_ranks_report_one_run(tmp_path):
    zero, one = ranks(tmp_path)
    (run_id,) = {event["run_id"] for event in zero + one}
    assert run_id
    assert {event["attempt"] for event in zero + one} == {1}
    assert zero[0]["world_size"] == one[0]["world_size"] == 2
    assert losses(zero, "training.step") == [[1.0], [3.0]]
    assert losses(one, "training.step") == [[2.0], [4.0]]
    assert losses(zero, "training.epoch") == [[2.0, 2.5]]
    assert losses(one, "training.epoch") == [[3.0, 2.5]]
    assert losses(zero, "training.eval") == losses(one, "training.eval") == [[2.5]]
    saved = [event["event"] for event in zero + one if event["event"] == "training.checkpoint"]
    assert saved == ["training.checkpoint"]
    assert "training.checkpoint" in [event["event"] for event in zero]
