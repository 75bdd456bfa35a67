"""`next_attempt`: the attempts at a run, counted in a file."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

import telemetry
from telemetry.testing import capture


@pytest.fixture
def file(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("TORCHELASTIC", "SLURM", "RANK", "LOCAL_RANK", "OMPI", "PMI")):
            monkeypatch.delenv(name)
    return tmp_path / "runs" / "digits" / "run.json"


def test_the_first_attempt_is_at_a_new_run(file):
    first = telemetry.next_attempt(file)
    assert first["attempt"] == 1
    assert json.loads(file.read_text()) == first
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


def test_each_further_one_counts_also_if_it_comes_to_nothing(file):
    first = telemetry.next_attempt(str(file))
    seen = []
    for _ in range(3):  # each dies at its first step, before any checkpoint
        with (
            capture(("training", "step")) as events,
            contextlib.suppress(RuntimeError),
            telemetry.workflow_run("digits", **telemetry.next_attempt(file)),
        ):
            telemetry.emit_step(loss=0.5, step=1)
            raise RuntimeError
        seen += [(event.metadata["run_id"], event.metadata["attempt"]) for event in events]
    assert seen == [(first["run_id"], attempt) for attempt in (2, 3, 4)]


def test_the_callbacks_take_it(file):
    from telemetry.integrations.fit import Fit

    telemetry.next_attempt(file)
    second = telemetry.next_attempt(file)
    fit = Fit("digits", **second)
    fit.begin("fit", module="example")
    assert fit.state_dict() == second == {"run_id": second["run_id"], "attempt": 2}
    fit.end()


def test_a_new_run_can_take_the_place(file):
    first = telemetry.next_attempt(file)
    telemetry.next_attempt(file)
    new = telemetry.next_attempt(file, resume=False)
    assert new["attempt"] == 1
    assert new["run_id"] != first["run_id"]
    assert telemetry.next_attempt(file) == {"run_id": new["run_id"], "attempt": 2}


def test_the_launcher_may_have_counted_more(file, monkeypatch):
    first = telemetry.next_attempt(file)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "sweep-7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "4")
    for attempt in (5, 6):
        assert telemetry.next_attempt(file) == {"run_id": first["run_id"], "attempt": attempt}
    assert telemetry.next_attempt(file, resume=False)["attempt"] == 5


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_one_rank_counts(file, monkeypatch, variable):
    monkeypatch.setenv(variable, "0")
    telemetry.next_attempt(file)
    before = file.read_text()
    monkeypatch.setenv(variable, "3")
    with pytest.raises(RuntimeError) as refused:
        telemetry.next_attempt(file)
    assert str(refused.value) == (
        "next_attempt was called on rank 3, and each rank would count an attempt of its own. Call "
        "it on rank 0 and hand the result to the others, as with "
        "torch.distributed.broadcast_object_list."
    )
    assert file.read_text() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"run_id": "r"}', '{"run_id": "", "attempt": 1}',
     '{"run_id": "r", "attempt": 0}', '{"run_id": 3, "attempt": 1}', "\xff", "x" * 100_000],
)  # fmt: skip
def test_a_file_that_tells_of_no_run_is_left_alone(file, text):
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="does not tell of a run") as refused:
        telemetry.next_attempt(file)
    assert str(refused.value).endswith(
        "which does not tell of a run. Allowed: what next_attempt writes, as "
        '{"run_id": "r1", "attempt": 1}. Give another path, or resume=False for a new run in its '
        "place."
    )
    assert len(str(refused.value)) < 2000
    assert file.read_text(encoding="latin-1") == text


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(file):
    file.mkdir(parents=True)
    with pytest.raises(OSError, match=r"run\.json"):
        telemetry.next_attempt(file, resume=False)
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


def test_bad_arguments_are_refused(file):
    with pytest.raises(TypeError) as refused:
        telemetry.next_attempt(3)
    assert str(refused.value) == (
        "path must be a path, got 3 (int). Write next_attempt('runs/digits/run.json')."
    )
    with pytest.raises(TypeError) as refused:
        telemetry.next_attempt(file, resume="no")
    assert str(refused.value) == "resume must be True or False, got 'no' (str)."


KILLED = """
import os, sys, telemetry
telemetry.next_attempt(sys.argv[1])
os._exit(9)
"""


def test_a_process_that_is_killed_at_once_has_counted(file):
    first = telemetry.next_attempt(file)
    done = subprocess.run([sys.executable, "-c", KILLED, file], check=False, timeout=120)
    assert done.returncode == 9
    assert telemetry.next_attempt(file) == {"run_id": first["run_id"], "attempt": 3}
