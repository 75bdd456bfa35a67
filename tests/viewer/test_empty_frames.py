"""What is done to frames is done to those without rows as well."""

import json

import pytest

from telemetry.viewer import (
    clip,
    downsample,
    filter_metrics,
    global_step,
    moving_average,
    read_jsonl,
)

CHANGES = {
    "moving_average": lambda frame: moving_average(frame, 5),
    "clip": lambda frame: clip(frame, 99),
    "downsample": lambda frame: downsample(frame, 5),
    "downsample by epoch": lambda frame: downsample(frame, 5, x_key="epoch"),
    "global_step": global_step,
    "filter_metrics": lambda frame: filter_metrics(frame, "train.loss"),
}


@pytest.fixture
def frame(tmp_path):
    """Two records of a metric."""
    log = tmp_path / "log.jsonl"
    record = {"event": "training.step", "measurements": {"loss": 2.5}, "metadata": {"step": 1}}
    log.write_text(f"{json.dumps(record)}\n" * 2)
    return read_jsonl(log)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("left_out", [[], ["run"]])
def test_a_frame_without_rows_stays_one(frame, change, left_out):
    empty = frame.iloc[:0].drop(columns=left_out)
    changed = change(empty)
    assert changed is not empty
    assert list(changed.columns) == list(empty.columns)
    assert len(changed) == 0


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "filter_metrics"])
def test_so_does_that_of_an_empty_log(tmp_path, name):
    log = tmp_path / "log.jsonl"
    log.touch()
    changed = CHANGES[name](read_jsonl(log))
    assert list(changed.columns[:5]) == ["run", "timestamp", "event", "step", "epoch"]
    assert len(changed) == 0
