import importlib
import json
import os
import socket

import pytest

from telemetry import ranks


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for variable in ranks.RANK_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_nothing_tells(run_script):
    done = run_script("import telemetry; print(telemetry.ranks.rank())")
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
@pytest.mark.parametrize("rank", [0, 3, 1023])
def test_the_launcher_tells(monkeypatch, variable, rank):
    monkeypatch.setenv(variable, str(rank))
    assert ranks.rank() == rank


def test_torchruns_variable_goes_before_slurms(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("RANK", "5")
    assert ranks.rank() == 5


@pytest.mark.parametrize("nonsense", ["", "-1", "first", "1.5", " 1"])
def test_what_is_no_rank_is_passed_over(monkeypatch, nonsense):
    monkeypatch.setenv("RANK", nonsense)
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert ranks.rank() == 2


TORCH = """
import json, os, sys
import telemetry
import torch.distributed as dist

before = telemetry.ranks.rank()
dist.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2
)
print(json.dumps([before, telemetry.ranks.rank()]))
dist.destroy_process_group()
"""

JAX = """
import json
import telemetry
import jax

before = telemetry.ranks.rank()
assert not jax._src.xla_bridge.backends_are_initialized()
print(json.dumps([before]))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_torch_tells_once_it_is_initialised(tmp_path):
    import subprocess
    import sys

    importlib.import_module("torch")
    script = tmp_path / "script.py"
    script.write_text(TORCH)
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, script, port, str(rank)], stdout=subprocess.PIPE, env=os.environ
        )
        for rank in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert answers == [[None, 0], [None, 1]]


def test_asking_does_not_start_jax(run_script):
    importlib.import_module("jax")
    done = run_script(JAX)
    assert (done.stdout, done.stderr) == ("[null]\n", "")
