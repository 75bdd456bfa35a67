"""The main job, run as a user runs it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from telemetry.events import find

CLI = [sys.executable, "-m", "telemetry"]
EPOCHS, STEPS = 20, 20 * 23  # 1438 training digits in batches of 64


def run_demo(directory, *arguments):
    return subprocess.run(
        [*CLI, "demo", *arguments],
        check=False,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module", params=["numpy", "torch"])
def demo(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    done = run_demo(directory, "--backend", request.param, "--run-id", "r1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run = directory / "runs" / "r1"
    records = [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    return request.param, done.stdout, records, run


def of(records, event):
    return [record for record in records if record["event"] == event]


def test_it_learns(demo):
    _, _, records, _ = demo
    accuracies = [record["measurements"]["accuracy"] for record in of(records, "training.eval")]
    assert len(accuracies) == EPOCHS
    assert accuracies[-1] > 0.9
    assert accuracies[-1] > accuracies[0]


def test_every_step_reports_clipping_loss_and_both_regularizers(demo):
    backend, _, records, _ = demo
    counts = Counter(record["event"] for record in records)
    assert counts == {
        "workflow.run.start": 1,
        "workflow.run.stop": 1,
        "smartclip.clip.start": STEPS,
        "smartclip.clip.group": STEPS,
        "smartclip.clip.stop": STEPS,
        "custom_loss.start": STEPS,
        "custom_loss.stop": STEPS,
        "regularizer.compute.start": 2 * STEPS,
        "regularizer.compute.stop": 2 * STEPS,
        "training.step": STEPS,
        "training.timing": STEPS,
        "training.epoch": EPOCHS,
        "training.eval": EPOCHS,
    }
    stops = of(records, "smartclip.clip.stop")
    assert [record["metadata"]["step"] for record in stops] == list(range(1, STEPS + 1))
    assert {record["metadata"]["run_id"] for record in records} == {"r1"}
    assert {record["metadata"]["attempt"] for record in records} == {1}
    for name in ("custom_loss.stop", "training.step", "training.timing"):
        steps = [record["metadata"]["step"] for record in of(records, name)]
        assert steps == list(range(1, STEPS + 1)), name
    assert {record["metadata"]["backend"] for record in stops} == {backend}


def test_the_terms_add_up_to_the_loss(demo):
    _, _, records, _ = demo
    contributions = Counter()
    for record in of(records, "regularizer.compute.stop"):
        contributions[record["metadata"]["step"]] += record["measurements"]["contribution"]
    for record in of(records, "custom_loss.stop"):
        step = record["metadata"]["step"]
        total = record["measurements"]["regularizer_total"]
        assert total == pytest.approx(contributions[step], rel=1e-5, abs=1e-7)
    losses = [record["measurements"]["loss"] for record in of(records, "training.step")]
    totals = [record["measurements"]["loss_total"] for record in of(records, "custom_loss.stop")]
    assert losses == pytest.approx(totals, rel=1e-7)  # the one float64, the other float32


def test_clipping_acts_after_warm_up_and_bounds_the_norm(demo):
    _, stdout, records, _ = demo
    stops = of(records, "smartclip.clip.stop")
    outcomes = Counter(record["metadata"]["outcome"] for record in stops)
    assert outcomes["applied"] > 10
    assert {record["metadata"]["outcome"] for record in stops[:10]} == {"unclipped"}
    for record in stops:
        if record["metadata"]["outcome"] == "applied":
            measured = record["measurements"]
            assert measured["clipped_grad_norm"] <= measured["threshold"] * (1 + 1e-5)
    assert f"{outcomes['applied']} applied, {outcomes['unclipped']} unclipped" in stdout


def test_the_catalogue_has_every_event_with_its_measurements_and_metadata(demo):
    _, _, records, _ = demo
    ambient = {"run_id", "attempt", "epoch", "total_steps", "step"}
    for record in records:
        spec = find(tuple(record["event"].split(".")))
        assert spec is not None, record["event"]
        known = {field.name for field in spec.metadata} | ambient
        assert set(record["metadata"]) <= known, record
        if spec.emitter != "your code":
            expected = {field.name for field in spec.measurements}
            assert set(record["measurements"]) == expected - {"target", "weight_norm"}  # AGC's


def test_it_prints_progress_and_what_to_try_next(demo):
    _, stdout, _, directory = demo
    assert f"Step 460/{STEPS} | loss=" in stdout
    assert "Epoch 20/20 complete" in stdout
    assert "\x1b" not in stdout
    for written in (directory / "metrics.jsonl", directory / "training.png"):
        assert str(written.relative_to(directory.parent.parent)) in stdout
    assert "demo --backend" in stdout


def test_the_picture_is_a_png_of_a_readable_size(demo):
    from PIL import Image

    *_, directory = demo
    with Image.open(directory / "training.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 50  # not blank


def test_its_own_handler_is_detached_again(demo):
    _, stdout, _, _ = demo
    assert "'demo-outcomes'" in stdout


def test_an_existing_run_is_refused(tmp_path):
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    done = run_demo(tmp_path, "--run-id", "r1")
    assert done.returncode == 1
    expected = "Error: The run runs/r1 exists already. Choose another --run-id or --out.\n"
    assert done.stderr == expected


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_demo(tmp_path, "--out", "file/runs")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot make the run's directory: ")
    assert "Traceback" not in done.stderr


def test_a_package_hidden_by_the_users_file_is_named(tmp_path):
    (tmp_path / "handlers.py").write_text("")
    done = run_demo(tmp_path)
    assert done.returncode == 1
    ours = Path(__file__).parent.parent / "handlers" / "__init__.py"
    assert done.stderr == (
        f"Error: 'import handlers' finds {tmp_path / 'handlers.py'}, "
        f"which hides the package {ours} of trainbus. "
        "Rename that file or folder, or start Python from another directory.\n"
    )


def test_a_missing_extra_is_named_with_its_command(tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ImportError('not here')")
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: telemetry demo needs the module 'sklearn.datasets', which cannot be imported. "
        "Install it with: pip install 'trainbus[demo]'\n"
    )
