import importlib
import json
import os
import subprocess
import sys

import pytest

from telemetry import ranks


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for variable in (*ranks.RANK_VARIABLES, *ranks.SIZE_VARIABLES, "SLURM_STEP_ID"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def step_of_slurm(monkeypatch):
    """Be a task of a step of 16."""
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")


def test_nothing_tells(run_script):
    done = run_script("import telemetry; print(telemetry.ranks.rank())")
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
@pytest.mark.parametrize("rank", [0, 3, 1023])
@pytest.mark.usefixtures("step_of_slurm")
def test_the_launcher_tells(monkeypatch, variable, rank):
    monkeypatch.setenv(variable, str(rank))
    assert ranks.rank() == rank
    assert ranks.rank_variable() == variable


@pytest.mark.usefixtures("step_of_slurm")
def test_torchruns_variable_goes_before_slurms(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("RANK", "5")
    assert ranks.rank() == 5


@pytest.mark.parametrize("nonsense", ["", "-1", "first", "1.5", " 1"])
@pytest.mark.usefixtures("step_of_slurm")
def test_what_is_no_rank_is_passed_over(monkeypatch, nonsense):
    monkeypatch.setenv("RANK", nonsense)
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert ranks.rank() == 2


@pytest.mark.parametrize(
    "around",
    [
        {"SLURM_NTASKS": "8"},  # salloc, and a job without srun
        {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "4294967291"},  # a batch script's mark
        {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "4294967290"},  # of an interactive shell
        {"SLURM_NTASKS": "8", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "8", "SLURM_STEP_ID": "none", "SLURM_STEP_NUM_TASKS": "8"},
    ],
    ids=str,
)
def test_what_slurm_says_of_the_job_is_not_taken_for_the_process(monkeypatch, around):
    monkeypatch.setenv("SLURM_PROCID", "0")
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.rank_variable(), ranks.world_size()) == (None, None, 1)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert (ranks.rank(), ranks.world_size()) == (2, 4)


TORCH = """
import json, os, sys
import telemetry
import torch.distributed as dist

before = telemetry.ranks.rank()
dist.init_process_group(
    "gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2
)
print(json.dumps([before, telemetry.ranks.rank(), telemetry.ranks.world_size()]))
dist.destroy_process_group()
"""

JAX = """
import json
import telemetry
import jax

before = telemetry.ranks.rank(), telemetry.ranks.world_size()
assert not jax._src.xla_bridge.backends_are_initialized()
print(json.dumps(before))
"""


def test_torch_tells_once_it_is_initialised(tmp_path):
    importlib.import_module("torch")
    script = tmp_path / "script.py"
    script.write_text(TORCH)
    meeting = tmp_path / "meeting"
    processes = [
        subprocess.Popen([sys.executable, script, meeting, str(rank)], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert answers == [[None, 0, 2], [None, 1, 2]]


SPAWN = """
import os, sys
import telemetry
import torch.distributed as dist
import torch.multiprocessing as mp


def work(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    with open(f"{folder}/{rank}", "w") as file:
        file.write(f"{telemetry.ranks.rank()} {telemetry.ranks.world_size()}")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, (sys.argv[1],), nprocs=2)
"""


@pytest.mark.parametrize(
    "launcher",
    [
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    ],
    ids=["torchrun", "slurm"],
)
def test_a_process_group_goes_before_what_the_launcher_says_of_the_parent(tmp_path, launcher):
    importlib.import_module("torch")
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, **launcher, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=True,
    )
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 2", "1 2"]


def test_asking_does_not_start_jax(run_script):
    importlib.import_module("jax")
    done = run_script(JAX)
    assert (done.stdout, done.stderr) == ("[null, 1]\n", "")


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_the_launcher_tells_how_many_there_are(monkeypatch, variable):
    assert ranks.world_size() == 1
    monkeypatch.setenv(variable, "16")
    assert ranks.world_size() == 16


@pytest.mark.usefixtures("step_of_slurm")
def test_slurms_step_tells_how_many_there_are(monkeypatch):
    assert ranks.world_size() == 16
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "many")
    assert ranks.world_size() == 1


@pytest.mark.parametrize("nonsense", ["", "-2", "many", "2.0"])
@pytest.mark.usefixtures("step_of_slurm")
def test_what_is_no_size_is_passed_over(monkeypatch, nonsense):
    monkeypatch.setenv("WORLD_SIZE", nonsense)
    assert ranks.world_size() == 16


@pytest.mark.usefixtures("step_of_slurm")
def test_torchruns_size_goes_before_slurms(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert ranks.world_size() == 8
