"""`read_jsonl` on logs whose frame is known by hand."""

import gzip
import json
import warnings

import numpy as np
import pandas as pd
import pytest

import handlers
import telemetry
from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.logs.bad_lines import BadLinesWarning
from telemetry.viewer.logs.entries import read_entries


def values(frame, name):
    """The values of a metric with their steps."""
    some = frame[frame[name].notna()]
    return list(zip(some["step"], some[name], strict=True))


def test_what_the_handler_wrote_has_the_reported_names(tmp_path):
    log = tmp_path / "metrics.jsonl"
    bus = telemetry.Registry()
    with handlers.attach("jsonl", path=log, registry=bus):
        bus.execute(("training", "step"), {"loss": 2.5, "lr": 1e-3}, {"step": 1})
        bus.execute(("training", "eval"), {"accuracy": 0.5}, {"step": 1, "split": "val"})
        bus.execute(("smartclip", "clip", "group"), {"scale": 0.25}, {"key": ("param", "0")})
        bus.execute(("custom_loss", "stop"), {"duration": 1_500_000, "monotonic_time": 7}, {})
        bus.execute(("training", "step"), {"loss": float("nan"), "big": 2**70}, {"step": 2})
    frame = read_jsonl(log)
    assert frame.attrs["metrics"] == [
        "training.loss",
        "training.lr",
        "training.big",
        "val.accuracy",
        "smartclip.scale[param/0]",
        "custom_loss.duration_ms",
    ]
    assert frame.attrs["sources"] == [str(log)]
    assert list(frame["run"]) == ["metrics"] * 5
    assert list(frame["event"][:2]) == ["training.step", "training.eval"]
    assert values(frame, "training.loss") == [(1, 2.5)]
    assert list(frame["training.loss"].isna()) == [False, True, True, True, True]
    assert values(frame, "training.big") == [(2, 1180591620717411303424.0)]
    assert values(frame, "val.accuracy") == [(1, 0.5)]
    assert frame["smartclip.scale[param/0]"][2] == 0.25
    assert frame["custom_loss.duration_ms"][3] == 1.5
    assert frame["timestamp"].dtype == "datetime64[us, UTC]"
    assert frame["timestamp"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("record", "event", "metrics"),
    [
        ({"step": 3, "metrics": {"train": {"loss": 2.5}}}, "", {"train.loss": 2.5}),
        ({"step": 3, "metrics": {"train/loss": 2.5, "n": "a"}}, "", {"train.loss": 2.5}),
        ({"step": 3, "metric": "val/loss", "value": 0.5}, "", {"val.loss": 0.5}),
        ({"step": 3, "metric": "val.loss", "value": "Infinity"}, "", {"val.loss": np.inf}),
        ({"step": 3, "train.loss": 2.5, "host": "a"}, "", {"train.loss": 2.5}),
        ({"_type": "epoch_end", "step": 3, "loss": 1}, "epoch_end", {"loss": 1.0}),
        ({"event": "mine", "step": 3, "loss": True}, "mine", {"loss": 1.0}),
        ({"step": 3, "metrics": {"step": 9, "loss": 1}}, "", {"metrics.step": 9, "loss": 1}),
        ({"step": "3", "version": "7", "loss": 1}, "", {"loss": 1}),
    ],
)
def test_records_of_other_programs_are_read(write, record, event, metrics):
    frame = read_jsonl(write("log.jsonl", [record]))
    assert frame["step"][0] == 3
    assert frame["event"][0] == event
    assert {name: frame[name][0] for name in frame.attrs["metrics"]} == metrics


def test_dotted_and_slashed_names_are_one(write):
    records = [
        {"step": 1, "metrics": {"train/loss": 3.0}},
        {"step": 2, "metrics": {"train.loss": 2.0}},
        {"step": 3, "metrics": {"train": {"loss": 1.0}}},
        {"step": 4, "metric": "train/loss", "value": 0.5},
        {"step": 5, "train/loss": 0.25},
    ]
    frame = read_jsonl(write("log.jsonl", records))
    assert frame.attrs["metrics"] == ["train.loss"]
    assert values(frame, "train.loss") == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5), (5, 0.25)]


@pytest.mark.parametrize(
    ("key", "time"),
    [
        ("timestamp", "2026-11-21T10:30:00Z"),
        ("time", 1795257000),
        ("_timestamp", 1795257000.0),
        ("ts", "2026-11-21T12:30:00+02:00"),
        ("time", "2026-11-21 10:30:00"),
    ],
)
def test_times_of_other_programs_are_read(write, key, time):
    frame = read_jsonl(write("log.jsonl", [{key: time, "loss": 1}]))
    assert frame["timestamp"][0] == pd.Timestamp("2026-11-21T10:30:00Z")
    assert frame.attrs["metrics"] == ["loss"]


def test_a_step_of_other_programs_may_be_called_global(write):
    record = {"global_step": 100, "loss": 1.0}
    log = write("log.jsonl", [record, record | {"step": 7}, record | {"step": None}])
    assert read_jsonl(log)["step"].tolist() == [100, 7, 100]
    assert [each.metadata["step"] for each in read_entries(log)] == [100, 7, 100]


def test_other_metadata_are_columns(write):
    records = [
        {"event": "a", "measurements": {"x": 1}, "metadata": {"host": "h", "lr": 0.5, "l": [1, 2]}},
        {"event": "a", "measurements": {"x": 2}, "metadata": {"host": "h", "event": "inner"}},
    ]
    frame = read_jsonl(write("log.jsonl", records))
    assert frame.attrs["metrics"] == ["a.x"]
    assert list(frame["host"]) == ["h", "h"]
    assert frame["lr"][0] == 0.5
    assert np.isnan(frame["lr"][1])
    assert json.loads(frame["l"][0]) == [1, 2]
    assert frame["metadata.event"][1] == "inner"


def test_spans_and_stack_traces_are_left_out(write):
    metadata = {"telemetry_span_context": {"span_id": "1"}, "stacktrace": ["..."], "kind": "error"}
    record = {"event": "a.exception", "measurements": {"duration": 1}, "metadata": metadata}
    frame = read_jsonl(write("log.jsonl", [record]))
    assert {"telemetry_span_context", "stacktrace"} & set(frame.columns) == set()
    assert frame["kind"][0] == "error"


def test_of_a_key_that_stands_twice_the_first_is_taken(write):
    frame = read_jsonl(write("log.jsonl", [b'{"loss": 1, "loss": 2}']))
    assert frame["loss"][0] == 1


def test_only_some_metrics_can_be_read(write, step_of):
    evaluation = {"event": "training.eval", "measurements": {"loss": 0.5, "acc": 1}}
    evaluation["metadata"] = {"split": "val", "step": 2}
    log = write("log.jsonl", [step_of(1, 2.5), evaluation])
    for wanted, found in (
        ("train/loss", ["training.loss"]),
        (["val."], ["val.loss", "val.acc"]),
        ("*.loss", ["training.loss", "val.loss"]),
    ):
        frame = read_jsonl(log, metrics=wanted)
        assert frame.attrs["metrics"] == found
    assert len(read_jsonl(log, metrics="val.acc")) == 1
    with pytest.raises(ValueError, match=r"no metric 'val.los'. Nearest: val.loss"):
        read_jsonl(log, metrics="val.los")


def test_bad_lines_are_named_and_left_out(write, step_of):
    lines = [step_of(1, 2.5), b"garbage", b"", step_of(2, 1.5), b'{"torn": ']
    log = write("log.jsonl", lines)
    with pytest.warns(BadLinesWarning) as caught:
        frame = read_jsonl(log)
    assert str(caught[0].message) == (
        f"{log}: no record in lines 2, 5 (unexpected character, expected a JSON value: "
        "line 1 column 1 (char 0)); left out."
    )
    assert caught[0].filename == __file__
    assert values(frame, "training.loss") == [(1, 2.5), (2, 1.5)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"x":' * 101 + b"1" + b"}" * 101, "nested deeper than 100 levels"),
        (b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "recursion limit exceeded|deeper"),
        (b'{"x":"' + b"y" * (16 * 1024 * 1024) + b'"}', "longer than 16,777,216 bytes"),
        (b'{"x":"\xff"}', "no UTF-8"),
        (b"[1]", "no JSON object"),
        (b'{"x":1}\x00', "unexpected content"),
    ],
)
def test_a_line_that_the_engine_cannot_take_spoils_no_other(write, step_of, line, reason):
    log = write("log.jsonl", [step_of(1, 2.5), line, step_of(2, 1.5)])
    with pytest.warns(BadLinesWarning, match=f"in line 2 .*{reason}"):
        frame = read_jsonl(log)
    assert values(frame, "training.loss") == [(1, 2.5), (2, 1.5)]


def test_a_byte_order_mark_is_no_part_of_the_first_line(write, step_of):
    log = write("log.jsonl", [b"\xef\xbb\xbf" + json.dumps(step_of(1, 2.5)).encode(), b"bad"])
    with pytest.warns(BadLinesWarning, match="no record in line 2 "):
        frame = read_jsonl(log)
    assert values(frame, "training.loss") == [(1, 2.5)]


def test_long_lines_are_read(write):
    names = {f"layer{number}": number for number in range(20_000)}
    record = {"event": "a", "measurements": {"x": 1.5}, "metadata": {"names": names}}
    assert read_jsonl(write("log.jsonl", [record]))["a.x"][0] == 1.5


@pytest.mark.parametrize("cut", [1, 7, 15])
def test_a_torn_gzip_file_is_read_as_far_as_it_goes(tmp_path, step_of, cut):
    lines = [json.dumps(step_of(step, 1.0)).encode() + b"\n" for step in range(1, 4)]
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress(lines[0]) + gzip.compress(lines[1] + lines[2])[:-cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadLinesWarning)  # the last line may be half of one
        frame = read_jsonl(log)
    assert list(frame["step"][:2]) == [1, 2]


def test_a_gzip_file_that_is_damaged_is_read_up_to_there(tmp_path, step_of):
    line = json.dumps(step_of(1, 2.5)).encode() + b"\n"
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress(line) + b"no gzip at all")
    with pytest.warns(BadLinesWarning, match="the gzip file is damaged"):
        frame = read_jsonl(log)
    assert values(frame, "training.loss") == [(1, 2.5)]


@pytest.mark.parametrize("lines", [[], [b""], [b"{}"], [{"host": "a"}]])
def test_a_file_without_metrics_is_a_frame_without(write, lines):
    frame = read_jsonl(write("log.jsonl", lines))
    assert frame.attrs["metrics"] == []
    assert list(frame.columns[:5]) == ["run", "timestamp", "event", "step", "epoch"]
    assert len(frame) == sum(line != b"" for line in lines)


def test_names_that_are_patterns_or_addresses_are_files(write, step_of):
    for name in ("a[1].jsonl", "b{x}.jsonl", "s3:/c.jsonl", "it's.jsonl", "d\ne.jsonl"):
        log = write(name, [step_of(1, 2.5)])
        assert values(read_jsonl(log), "training.loss") == [(1, 2.5)]


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^There is no file 'nope.jsonl'\.$"):
        read_jsonl("nope.jsonl")
    with pytest.raises(FileNotFoundError, match=r"^No file matches 'no\*.jsonl'\.$"):
        read_jsonl("no*.jsonl")
    with pytest.raises(FileNotFoundError, match=r"has no log: no file ends in .jsonl or .jsonl.gz"):
        read_jsonl(tmp_path)
    with pytest.raises(
        TypeError, match=r"A log is named by a path or a list of paths, got 3 \(int"
    ):
        read_jsonl(3)
    with pytest.raises(ValueError, match="No log file was given"):
        read_jsonl([])


def test_a_frame_that_would_be_too_large_is_refused(write, monkeypatch):
    monkeypatch.setattr("telemetry.viewer.frames.frame.MOST_CELLS", 3)
    log = write("log.jsonl", [{"a": 1, "b": 2}, {"a": 3}])
    with pytest.raises(
        ValueError, match=r"2 metrics of 2 records are too many .*metrics=\[\"a\"\]"
    ):
        read_jsonl(log)
    assert values(read_jsonl(log, metrics="a").assign(step=[1, 2]), "a") == [(1, 1.0), (2, 3.0)]
