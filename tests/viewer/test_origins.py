"""From where axes are counted: a point is at one place, whatever else is read."""

import json

import numpy as np
import orjson
import pytest

from telemetry.viewer import filter_metrics, global_step, plot_metrics, read_jsonl
from telemetry.viewer.frames.axes import positions


def write(path, records):
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


@pytest.fixture
def evaluated_late(tmp_path):
    """A training of 100 minutes, of which each 50th step is evaluated."""
    records = []
    for step in range(1, 101):
        stamp = f"2026-01-01T{step // 60:02}:{step % 60:02}:00Z"
        records.append({"timestamp": stamp, "step": step, "metrics": {"train.loss": 1.0}})
        if step % 50 == 0:
            records.append({"timestamp": stamp, "step": step, "metrics": {"val.loss": 2.0}})
    return write(tmp_path / "a.jsonl", records)


@pytest.fixture
def restarting(tmp_path):
    """Three epochs of 100 steps from 0, with a probe at the steps 10 and 20 of each."""
    records = []
    for epoch in range(3):
        for step in range(100):
            records.append({"epoch": epoch, "step": step, "metrics": {"train.loss": 1.0}})
            if step in (10, 20):
                records.append({"epoch": epoch, "step": step, "metrics": {"probe": 1.0}})
    return write(tmp_path / "a.jsonl", records)


def frames_with(log, metric):
    """The rows of one metric in all that was read, alone in it, and read alone."""
    every = read_jsonl(log)
    frames = (every, filter_metrics(every, metric), read_jsonl(log, metrics=metric))
    return [frame.loc[frame[metric].notna()] for frame in frames]


def test_time_is_counted_from_the_first_record_of_the_run_and_not_of_the_metric(evaluated_late):
    minutes = [49 * 60.0, 99 * 60.0]  # the first record is of minute 1
    for frame in frames_with(evaluated_late, "val.loss"):
        assert positions(frame, "time").tolist() == minutes


def test_a_picture_of_one_metric_has_it_where_that_of_several_has_it(evaluated_late):
    for metrics in (["val.loss"], ["val.loss", "train.loss"]):
        frame = read_jsonl(evaluated_late, metrics=metrics)
        (axes,) = plot_metrics(frame, metrics, x_key="time").axes
        assert axes.get_lines()[0].get_xdata().tolist() == [49.0, 99.0]


def test_epochs_are_as_long_as_all_their_records_say(restarting):
    for frame in frames_with(restarting, "probe"):
        assert positions(frame, "step").tolist() == [10, 20, 110, 120, 210, 220]
        assert global_step(frame)["step"].tolist() == [10, 20, 110, 120, 210, 220]


def test_ends_of_epochs_whose_step_is_the_number_of_the_epoch_stretch_nothing(tmp_path):
    def of(epoch):
        for step in range(10 * epoch - 9, 10 * epoch + 1):
            yield {"step": step, "epoch": epoch, "metrics": {"train.loss": 1.0}}
        yield {"_type": "epoch_end", "step": epoch, "epoch": epoch, "metrics": {"val.loss": 0.5}}

    log = write(tmp_path / "a.jsonl", [record for epoch in (1, 2, 3) for record in of(epoch)])
    frame = read_jsonl(log)
    renamed = frame.assign(run="renamed")
    for each in (frame, renamed):
        counted = global_step(each)
        assert counted["step"][counted["train.loss"].notna()].tolist() == list(range(1, 31))
        assert counted["step"][counted["val.loss"].notna()].tolist() == [1, 2, 3]


def test_one_record_of_another_event_moves_no_epoch(tmp_path):
    def record(event, epoch, step):
        place = {"epoch": epoch, "step": step}
        return {"event": event, "measurements": {"loss": 1.0}, "metadata": place}

    records = [record("training.step", 1 + (step > 4), step) for step in range(1, 9)]
    log = write(tmp_path / "a.jsonl", [*records, record("x.y", 2, 0)])
    assert global_step(read_jsonl(log))["step"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_an_event_beside_a_training_that_restarts_is_counted_on_with_it(tmp_path):
    def record(event, epoch, step):
        place = {"epoch": epoch, "step": step}
        return {"event": event, "measurements": {"loss": 1.0}, "metadata": place}

    steps = [record("training.step", epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    log = write(tmp_path / "a.jsonl", [*steps, record("x.y", 2, 3)])
    assert global_step(read_jsonl(log))["step"].tolist() == [1, 2, 3, 4, 5, 6, 6]


def test_steps_that_were_counted_on_are_not_so_again(restarting):
    frame = global_step(read_jsonl(restarting))
    assert frame["step"].max() == 299
    assert positions(frame, "step").max() == 299
    assert global_step(frame)["step"].max() == 299


def test_origins_are_kept_in_a_frame_as_json_would_have_them(restarting):
    origins = read_jsonl(restarting).attrs["origins"]
    assert json.loads(json.dumps(origins)) == {
        "a": {"began": None, "offsets": [[0.0, 1.0, 2.0], [0.0, 100.0, 200.0]]}
    }


def test_a_run_that_the_origins_do_not_know_is_counted_by_its_rows(restarting):
    frame = filter_metrics(read_jsonl(restarting), "train.loss")
    frame["run"] = "renamed"
    assert positions(frame, "step").tolist() == list(range(300))


def test_records_without_any_place_are_numbered_in_their_run(tmp_path):
    records = [
        {"event": name, "measurements": {"loss": 1.0}, "metadata": {}} for name in ("x", "y", "x")
    ]
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", records)
    alone = read_jsonl(tmp_path, metrics="x.loss")
    assert alone["record"].tolist() == [1, 3, 1, 3]
    assert alone.attrs["metrics"] == ["x.loss"]
    np.testing.assert_array_equal(positions(alone, "record"), [1, 3, 1, 3])
    assert "record" not in read_jsonl(write(tmp_path / "c.jsonl", [{"step": 1, "loss": 1.0}]))
