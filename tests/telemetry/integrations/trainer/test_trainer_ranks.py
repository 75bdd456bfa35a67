"""Which run the ranks of a training of transformers are in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

SCRIPT = """
import json, os, runpy, sys, warnings
warnings.simplefilter("ignore")  # the vendor's
import torch, transformers
from telemetry.integrations import transformers_ranks
from telemetry.integrations.transformers import TelemetryCallback
from telemetry.testing import capture

shared = runpy.run_path(sys.argv[1])
directory = sys.argv[2]
transformers_ranks.PATIENCE /= float(sys.argv[3])
transformers.TrainingArguments(directory, use_cpu=True, ddp_backend="gloo").device
rank = torch.distributed.get_rank()
if sys.argv[5] == "unnamed":
    del os.environ["TORCHELASTIC_RUN_ID"]
keys = ("run_id", "attempt", "step")
calls = []
for name, listening in json.loads(sys.argv[4]):
    callbacks = [TelemetryCallback()] if rank in listening else []
    trainer = shared["small_trainer"](
        torch, transformers, directory, *callbacks, max_steps=2, ddp_backend="gloo"
    )
    with capture() as events:
        getattr(trainer, name)()
    calls.append([[".".join(e.event), *(e.metadata.get(key) for key in keys)] for e in events])
with open(f"{directory}/rank{rank}.json", "w") as file:
    json.dump(calls, file)
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def two_ranks(tmp_path):
    """Call methods of trainers on two ranks, of which some have a callback; returns the events."""

    def run(*calls, patience=30, job="named"):
        script = tmp_path / "ranks.py"
        script.write_text(SCRIPT)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        conftest = Path(__file__).parent / "conftest.py"
        given = [conftest, tmp_path, 30 / patience, json.dumps(calls), job]
        done = subprocess.run(
            [sys.executable, *launch, *map(str, given)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
        return zero, one, done.stderr

    return run


def steps(events):
    return [step for event, _, _, step in events if event == "training.step"]


def runs(*calls):
    return {tuple(event[1:3]) for events in calls for event in events}


def test_ranks_are_in_one_run(two_ranks):
    """Although the launcher has no name for the job, from which all could make the same."""
    calls = [("evaluate", (0, 1)), ("train", (0, 1)), ("train", (0, 1))]
    zero, one, said = two_ranks(*calls, job="unnamed")
    assert [len(runs(*both)) for both in zip(zero, one, strict=True)] == [1, 1, 1]
    assert len(runs(*zero)) == 3
    assert all(steps(events) == [1, 2] for events in (*zero[1:], *one[1:]))
    assert "Rank zero" not in said


@pytest.mark.parametrize("first", [0, 1])
def test_ranks_that_have_begun_other_runs_are_in_none_of_those(two_ranks, first):
    """Only one of them has a callback in the first training, and both in the others."""
    both = [("train", (0, 1))] * 2
    zero, one, said = two_ranks(("train", (first,)), *both, patience=3)
    assert [bool(events) for events in (zero[0], one[0])] == [first == 0, first == 1]
    assert all(steps(events) == [1, 2] for events in (*zero[1:], *one[1:]))
    assert not {run_id for run_id, _ in runs(*zero)} & {run_id for run_id, _ in runs(*one)}
    assert len(runs(*zero, *one)) == 5
    assert said.count("Rank zero has told no run_id") == 1
