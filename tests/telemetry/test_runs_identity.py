"""Which run this is, and which attempt at it, as launchers tell it."""

import os
import re
import subprocess
import sys

import pytest

LAUNCHERS = ("TORCHELASTIC", "SLURM", "GROUP_WORLD_SIZE", "RANK", "WORLD_SIZE", "OMPI", "PMI")
ASK = """
import telemetry
from telemetry.runs import attempt_of_the_job, new_run_id

print(new_run_id(), new_run_id(), attempt_of_the_job())
"""
NEW = r"\d{8}-\d{6}-[0-9a-f]{6}"


@pytest.fixture
def ask(tmp_path):
    """What a process under a launcher calls its two runs, and its attempt."""

    def ask(**environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", ASK],
            env={**clean, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        first, second, attempt = done.stdout.split()
        return first, second, int(attempt)

    return ask


def test_without_a_launcher_each_run_is_new(ask):
    first, second, attempt = ask()
    assert re.fullmatch(NEW, first)
    assert re.fullmatch(NEW, second)
    assert first != second
    assert attempt == 1


def test_torchruns_id_is_the_runs_and_a_second_run_has_a_number(ask):
    told = {"TORCHELASTIC_RUN_ID": "sweep-7", "TORCHELASTIC_RESTART_COUNT": "0"}
    assert ask(**told) == ("sweep-7", "sweep-7-2", 1)
    assert ask(**{**told, "TORCHELASTIC_RESTART_COUNT": "2"}) == ("sweep-7", "sweep-7-2", 3)


def test_torchrun_without_an_id_names_the_launch_on_a_single_machine(ask):
    told = {
        "TORCHELASTIC_RUN_ID": "none",
        "GROUP_WORLD_SIZE": "1",
        "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_x/none_bt2zezk7/attempt_0/1/error.json",  # noqa: S108 -- its form
    }
    assert ask(**told)[0] == "torchrun-bt2zezk7"
    assert re.fullmatch(NEW, ask(**{**told, "GROUP_WORLD_SIZE": "2"})[0])
    assert re.fullmatch(NEW, ask(**{**told, "TORCHELASTIC_ERROR_FILE": "/elsewhere"})[0])


JOB = {"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train.sh", "SLURM_PROCID": "0"}
BATCH = {**JOB, "SLURM_NTASKS": "8", "SLURM_STEP_ID": "4294967291"}  # the batch script's mark


def test_a_slurm_job_and_its_step(ask):
    step = {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}
    assert ask(**step) == ("1234.0", "1234.0-2", 1)
    assert ask(**{**step, "SLURM_STEP_NUM_TASKS": "1"})[0] == "1234.0"
    assert ask(**step, SLURM_RESTART_COUNT="1")[2] == 2


@pytest.mark.parametrize("around", [JOB, BATCH, {**BATCH, "SLURM_RESTART_COUNT": "0"}])
def test_trainings_that_a_batch_script_starts_one_after_another_are_different_runs(ask, around):
    first, second = ask(**around), ask(**around)
    assert re.fullmatch(NEW, first[0])
    assert first[0] != second[0]
    assert first[2] == 1


def test_what_is_several_in_a_batch_job_has_the_jobs_name(ask):
    assert ask(**BATCH, OMPI_COMM_WORLD_RANK="1")[:2] == ("1234", "1234-2")
    assert ask(**BATCH, RANK="0")[0] == "1234"
    assert ask(**BATCH, SLURM_RESTART_COUNT="1") == ("1234", "1234-2", 2)


@pytest.mark.parametrize("name", ["interactive", "bash"])
def test_in_a_shell_of_slurm_each_program_is_a_new_run(ask, name):
    job = {"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": name}
    assert re.fullmatch(NEW, ask(**job)[0])
    assert re.fullmatch(NEW, ask(**job, SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="1")[0])
    assert ask(**job, SLURM_STEP_ID="3", SLURM_STEP_NUM_TASKS="4")[0] == "1234.3"


def test_torchrun_goes_before_slurm_and_restarts_of_both_count(ask):
    told = {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "1"}
    assert ask(**told, SLURM_JOB_ID="9", SLURM_RESTART_COUNT="2") == ("a", "a-2", 4)


@pytest.mark.parametrize("nonsense", ["", "-1", "two"])
def test_a_count_that_is_none_is_passed_over(ask, nonsense):
    assert ask(TORCHELASTIC_RESTART_COUNT=nonsense)[2] == 1


WORKER = """
import os, sys
import telemetry

@telemetry.workflow_run("decorated")
def train():
    return telemetry.runs.CURRENT_RUN.get()

run = train()
with open(os.path.join(sys.argv[1], os.environ["RANK"] + "-" + str(run.attempt)), "w") as file:
    file.write(run.run_id)
if run.attempt == 1:
    sys.exit(3)
"""


def test_real_torchrun_gives_its_ranks_and_restarts_one_run(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    folder = tmp_path / "told"
    folder.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--max-restarts=1", "--master-addr=127.0.0.1", "--master-port=0"),
            *("--monitor-interval=0.1", str(script), str(folder)),
        ],
        env={**clean, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        timeout=240,
        check=True,
    )
    told = {file.name: file.read_text() for file in folder.iterdir()}
    assert {"0-2", "1-2"} <= told.keys() <= {"0-1", "1-1", "0-2", "1-2"}
    assert len(told) > 2
    assert len(set(told.values())) == 1
    assert re.fullmatch(r"torchrun-\w+", told["0-2"])
