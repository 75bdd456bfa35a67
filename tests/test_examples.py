"""Every example trains something to its end and says what it saw."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
TESTED_BELOW = ("regularizers_dominating", "training_rl", "training_supervised")
RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(example, folder, *arguments):
    done = start(example, folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


def start(example, folder, *arguments):
    ranks = RANKS if example.stem.endswith("_fsdp") else []
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *ranks, example, *arguments],
        check=False,
        cwd=folder,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    "example",
    [one for one in EXAMPLES if one.stem not in TESTED_BELOW],
    ids=lambda example: example.stem,
)
def test_example_runs(example, tmp_path):
    run(example, tmp_path)


SUPERVISED = EXAMPLES[0].with_name("training_supervised.py")
STEPS = 56  # of an epoch: 3584 points in batches of 64


def recorded(folder, event):
    lines = (folder / "runs" / "supervised" / "metrics.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == event]


def test_a_resumed_training_makes_the_steps_that_it_would_have_made_without_the_break(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    said = run(SUPERVISED, whole)
    assert f"Step {2 * STEPS + 13}/{3 * STEPS} | loss=" in said  # each 25th
    run(SUPERVISED, broken, "--stop-after", "1")
    run(SUPERVISED, broken, "--resume")

    steps = recorded(broken, "training.step")
    losses = [one["measurements"]["loss"] for one in steps]
    assert losses == [one["measurements"]["loss"] for one in recorded(whole, "training.step")]
    places = [tuple(one["metadata"][key] for key in ("attempt", "epoch", "step")) for one in steps]
    assert places == [
        (1 if epoch == 1 else 2, epoch, step)
        for epoch in (1, 2, 3)
        for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1)
    ]
    assert len({one["metadata"]["run_id"] for one in steps}) == 1
    for event in ("training.eval", "training.checkpoint"):
        places = [
            (one["metadata"]["epoch"], one["metadata"]["step"]) for one in recorded(broken, event)
        ]
        assert places == [(1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]

    assert run(SUPERVISED, broken, "--resume") == "Nothing to do: 3 epochs are done.\n"
    assert json.loads((broken / "runs" / "supervised" / "run.json").read_text())["attempt"] == 2


def test_what_cannot_be_resumed_or_stopped_is_said(tmp_path):
    nothing = start(SUPERVISED, tmp_path, "--resume")
    assert nothing.returncode == 2
    checkpoint = Path("runs", "supervised", "last.pt")
    assert nothing.stderr.endswith(f"--resume: there is no {checkpoint}; train without it first\n")
    refused = start(SUPERVISED, tmp_path, "--stop-after", "4")
    assert refused.returncode == 2
    assert "argument --stop-after: invalid choice: 4" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_the_rules_tell_a_policy_that_runs_away_from_one_that_learns(tmp_path):
    (example,) = (path for path in EXAMPLES if path.stem == "training_rl")
    said = dict(line.split(": ", 1) for line in run(example, tmp_path).splitlines()[-3:])
    assert said["steady"].endswith("critical: nothing")
    assert said["wild"].endswith("critical: entropy_collapse, kl_divergence_critical")
    rewards = [float(said[run_id].split()[1].rstrip(",")) for run_id in ("steady", "wild")]
    assert rewards[0] > rewards[1]
    lines = (tmp_path / "runs" / "rl" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("rl.step") == events.count("performance.operation.stop") == 80
    assert events.count("alert.raised") > 0


def test_the_records_show_a_regularizer_that_dominates_and_a_weight_that_does(tmp_path):
    example = next(path for path in EXAMPLES if path.stem == "regularizers_dominating")
    printed = run(example, tmp_path, "picture.png")
    stuck, trained = (
        float(line.split()[-1].rstrip("%")) / 100
        for line in printed.splitlines()
        if "accuracy" in line
    )
    assert stuck < 0.2
    assert trained > 0.85
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

    runs = tmp_path / "runs" / "regularizers_dominating"
    first, second = (Recorded(runs / f"{name}.jsonl") for name in ("first", "second"))
    assert first.contribution < 0.03 * first.loss_total
    assert first.contribution < second.contribution
    assert first.grad_norm_weighted == pytest.approx(
        1.0
    )  # the weight times the slope of a distance
    assert first.grad_norm_weighted > 2 * first.base_grad_norm
    assert second.grad_norm_weighted < 0.2 * second.base_grad_norm

    rows = [line.split() for line in printed.splitlines() if line.startswith("near_start  ")]
    for row, recorded in zip(rows, (first, second), strict=True):
        _, contribution, _, grad_norm, _ = row
        assert float(contribution) == pytest.approx(recorded.contribution, abs=5e-4)
        assert float(grad_norm) == pytest.approx(recorded.grad_norm_weighted, abs=5e-4)


class Recorded:
    """The medians over a run's steps, from its file."""

    def __init__(self, path):
        self._records = [json.loads(line) for line in path.read_text().splitlines()]
        self.loss_total = self._median("custom_loss.stop", "loss_total")
        self.base_grad_norm = self._median("training.step", "grad_norm")
        self.contribution = self._median("regularizer.compute.stop", "contribution")
        weight, *others = {record["metadata"]["weight"] for record in self._of_near_start()}
        assert not others
        self.grad_norm_weighted = weight * self._median("regularizer.compute.stop", "grad_norm")

    def _of_near_start(self):
        for record in self._records:
            if record["metadata"].get("regularizer_name") == "near_start":
                yield record

    def _median(self, event, measurement):
        records = self._of_near_start() if event.startswith("regularizer") else self._records
        found = [one["measurements"][measurement] for one in records if one["event"] == event]
        assert len(found) == 600
        return median(found)
