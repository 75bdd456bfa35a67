"""What the columns of metadata are called, and what they hold."""

import json

import numpy as np
import pandas as pd
import pytest

from telemetry.viewer.frames.frame import read_jsonl

OWN = ["run", "timestamp", "event", "step", "epoch"]


def training(metadata, loss=2.5, **more):
    return {"event": "training.step", "measurements": {"loss": loss}, "metadata": metadata} | more


@pytest.mark.parametrize(
    "key", ["metric0", "detail0", "place", "rowid", "c0", "form", "attempts", "training.x"]
)
def test_any_key_can_be_one_of_the_metadata(write, key):
    records = [training({"step": step, key: text}) for step, text in enumerate("xyx")]
    frame = read_jsonl(write("log.jsonl", records))
    assert list(frame[key]) == ["x", "y", "x"]
    assert list(frame["training.loss"]) == [2.5] * 3
    assert frame.attrs["metrics"] == ["training.loss"]


@pytest.mark.parametrize("key", [*OWN[:3], "record", "training.loss"])
def test_a_key_that_is_a_column_already_has_a_longer_name(write, key):
    frame = read_jsonl(write("log.jsonl", [training({"step": 1, key: "x"})]))
    assert list(frame[f"metadata.{key}"]) == ["x"]
    assert list(frame["event"]) == ["training.step"]
    assert list(frame["training.loss"]) == [2.5]


def test_no_two_columns_have_one_name(write):
    metadata = {"event": "a", "metadata.event": "b", "metadata.metadata.run": "c", "run": "d"}
    frame = read_jsonl(write("log.jsonl", [training(metadata)]))
    assert frame.columns.is_unique
    assert list(frame["metadata.event"]) == ["b"]
    assert list(frame["metadata.metadata.event"]) == ["a"]
    assert list(frame["metadata.metadata.run"]) == ["c"]
    assert list(frame["metadata.run"]) == ["d"]


@pytest.mark.parametrize("form", ['{"record": %d, "metrics": {"loss": 1}}', '{"record": %d}'])
def test_the_axis_of_records_is_no_key_of_theirs(write, form):
    """In the first form it is metadata, in the second a metric."""
    lines = [(form % number).encode() for number in (70, 80)]
    frame = read_jsonl(write("log.jsonl", lines))
    assert list(frame["record"]) == [1, 2]
    assert list(frame["metadata.record" if "metrics" in form else "metrics.record"]) == [70, 80]


@pytest.mark.parametrize("different", [3, 1500])
@pytest.mark.parametrize("text", ["start", "12"])
def test_numbers_beside_text_are_text(write, different, text):
    numbers = [1.5, *range(different), 1e5, 1.5]
    records = [training({"note": note}) for note in [text, *numbers, None]]
    notes = list(read_jsonl(write("log.jsonl", records))["note"])
    assert notes[:-1] == [text, *map(json.dumps, numbers)]
    assert pd.isna(notes[-1])


@pytest.mark.parametrize("different", [3, 1500])
def test_numbers_alone_are_numbers(write, different):
    records = [training({"note": note}) for note in [None, 1.5, *range(different)]]
    notes = read_jsonl(write("log.jsonl", records))["note"]
    assert notes.dtype == np.float64
    assert list(notes[1:]) == [1.5, *range(different)]


@pytest.mark.parametrize("different", [3, 1500])
def test_booleans_beside_numbers_are_0_and_1(write, different):
    records = [training({"note": note}) for note in [True, None, False, *range(different)]]
    notes = read_jsonl(write("log.jsonl", records))["note"]
    assert notes.dtype == np.float64
    np.testing.assert_array_equal(notes, [1, np.nan, 0, *range(different)])


@pytest.mark.parametrize("different", [3, 1500])
def test_booleans_and_numbers_beside_text_are_text(write, different):
    records = [training({"note": note}) for note in [True, "x", *range(different)]]
    notes = read_jsonl(write("log.jsonl", records))["note"]
    assert list(notes) == ["true", "x", *map(str, range(different))]


def test_booleans_are_booleans_and_beside_text_text(write):
    records = [training({"a": a, "b": b}) for a, b in [(True, "x"), (None, True), (False, "x")]]
    frame = read_jsonl(write("log.jsonl", records))
    assert list(frame["a"]) == [True, None, False]
    assert list(frame["b"]) == ["x", "true", "x"]


def test_a_name_can_be_made_of_a_bare_nan(write):
    """It is what Python's json makes of one; the bus writes "NaN"."""
    line = '{"event": "training.eval", "measurements": {"loss": 1.5}, "metadata": {"split": NaN}}'
    frame = read_jsonl(write("log.jsonl", [line.encode()]))
    assert frame.attrs["metrics"] == ["nan.loss"]
    assert list(frame["nan.loss"]) == [1.5]


FOREIGN = [{"step": step, "metrics": {"train/loss": 2.5}} for step in (1, 2, 3)]
FOREIGN += [{"step": step, "metrics": {"val/loss": loss}} for step, loss in ((4, "NaN"), (5, 1))]


def test_only_records_with_some_of_the_metrics_are_read(write, step_of):
    ours = [training({"step": 7}, measurements={"lr": 0.1}), step_of(8, 2.5)]
    log = write("log.jsonl", [*FOREIGN, {"step": 6, "metrics": {"val/loss": "none"}}, *ours])
    assert list(read_jsonl(log, metrics="val.loss")["step"]) == [4, 5]
    assert list(read_jsonl(log, metrics=["val.loss", "training.lr"])["step"]) == [4, 5, 7]
    assert list(read_jsonl(log, metrics="training.loss")["step"]) == [8]
    assert len(read_jsonl(log)) == 8


def test_records_that_are_not_wanted_make_no_frame_too_large(write, monkeypatch):
    monkeypatch.setattr("telemetry.viewer.frames.frame.MOST_CELLS", 2)
    log = write("log.jsonl", [training({"step": step}) for step in range(2)] + FOREIGN)
    assert len(read_jsonl(log, metrics="training.loss")) == 2
    with pytest.raises(ValueError, match="1 metrics of 5 records"):
        read_jsonl(log, metrics="val.loss")
