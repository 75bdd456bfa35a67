"""Every example trains something to its end and says what it saw."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(example, folder, *arguments):
    ranks = RANKS if example.stem.endswith("_fsdp") else []
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *ranks, example, *arguments],
        check=False,
        cwd=folder,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example.stem != "regularizers_dominating"],
    ids=lambda example: example.stem,
)
def test_example_runs(example, tmp_path):
    run(example, tmp_path)


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
