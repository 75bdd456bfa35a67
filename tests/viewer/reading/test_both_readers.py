"""What the frame and the reading of events make of odd records: the same."""

import gzip
import json
import math
import warnings

import pandas as pd
import pytest

from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.logs.bad_lines import BadLinesWarning
from telemetry.viewer.logs.entries import read_entries
from telemetry.viewer.logs.lines import LONGEST_LINE

OURS = '{"event": "training.step", "measurements": {"loss": 1.5}, "metadata": {"step": 1, %s}}'
FOREIGN = '{"step": 1, "metrics": {"loss": 1.5}, %s}'
BAD = "no record"


def nested(levels):
    return '"x": ' + "[" * levels + "]" * levels


def read_both(log):
    """The number of records, and the warnings, of each reader."""
    found = []
    for reader in (read_jsonl, lambda path: list(read_entries(path))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records = reader(log)
        found.append((len(records), [str(one.message) for one in caught]))
    return found


@pytest.mark.parametrize("record", [OURS, FOREIGN])
@pytest.mark.parametrize(("levels", "is_read"), [(90, True), (110, False), (1500, False)])
@pytest.mark.parametrize("beside", [[], [BAD]])
def test_a_record_that_is_nested_too_deep_is_left_out_and_named(
    tmp_path, record, levels, is_read, beside
):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join([record % nested(levels), record % '"y": 1', *beside]))
    bad = ([] if is_read else [1]) + ([3] if beside else [])
    which = ("lines " if len(bad) > 1 else "line ") + ", ".join(map(str, bad))
    for count, said in read_both(log):
        assert count == (2 if is_read else 1)
        assert len(said) == bool(bad)
        assert all(f"no record in {which} (" in text for text in said)


@pytest.mark.parametrize("levels", [99, 98])
def test_the_deepest_level_is_the_same(tmp_path, levels):
    """The record is the first level, its metadata the second."""
    log = tmp_path / "log.jsonl"
    log.write_text(OURS % nested(levels))
    assert [count for count, _ in read_both(log)] == [99 - levels] * 2


def test_many_lists_beside_each_other_are_not_deep(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(
        "\n".join(record % ('"x": [' + "[], " * 500 + "{}]") for record in (OURS, FOREIGN))
    )
    assert read_both(log) == [(2, []), (2, [])]
    frame = read_jsonl(log)
    assert list(frame["event"]) == ["training.step", ""]
    assert list(frame["step"]) == [1, 1]
    assert frame["training.loss"][0] == frame["loss"][1] == 1.5


@pytest.mark.parametrize(
    ("time", "is_known"),
    [
        (1763720000, True),
        (1763720000123, False),  # milliseconds
        (-1, False),
        ("2026-11-21T10:30:00Z", True),
        ("infinity", False),
        ("1969-12-31T23:59:59Z", False),
        ("2262-04-11T23:47:16.854775Z", True),
        ("2262-04-11T23:47:16.854776Z", False),
    ],
)
def test_times_outside_of_1970_to_2262_are_none(tmp_path, time, is_known):
    records = [{"timestamp": time, "step": 1, "metrics": {"loss": 1}}]
    if isinstance(time, str):  # as ours are
        records.append({"timestamp": time, "event": "a.b", "measurements": {"loss": 1}})
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, records)))
    times = [entry.time_ns for entry in read_entries(log)]
    moments = list(read_jsonl(log)["timestamp"])
    assert [time_ns is not None for time_ns in times] == [is_known] * len(records)
    assert (
        moments == [pd.Timestamp(t, tz="UTC") for t in times]
        if is_known
        else all(moment is pd.NaT for moment in moments)
    )


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        ("2026-11-21T10:30:00.123456Z", "10:30:00.123456"),
        ("2026-11-21 10:30:00,123", "10:30:00.123"),  # as Python's logging writes it
        ("2026-11-21T10:30:00.123456999Z", "10:30:00.123456"),
        ("2026-11-21T10:30:00+0230", "08:00:00"),
        ("2026-11-21T10:30-02", "12:30:00"),
        ("2026-11-21", "00:00:00"),
        (1795257000, "10:30:00"),
        (1795257000.25, "10:30:00.25"),
        *((text, None) for text in ("1795257000", "epoch", "now", "", "20261121", "2026-W47-6")),
        *((text, None) for text in ("2026-02-30", "2026-11-21T24:00:00Z", "2026-11-21T10:30:60")),
        *((text, None) for text in (" 2026-11-21", "2026-11-21T10:30:00 Z", "2026-11-21T10:30z")),
        *((text, None) for text in ("2026-11-21T10:30:00+24:00", "2026-11-21 10:30 UTC")),
        *((other, None) for other in (True, [], {}, ["2026-11-21"], None, 10**400)),
    ],
)
def test_both_take_the_same_for_a_time(tmp_path, time, moment):
    rest = {"event": "a.b", "measurements": {"x": 1}}
    records = [{key: time, "x": 1} for key in ("timestamp", "time", "ts", "_timestamp")]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, [{"timestamp": time} | rest, *records])))
    expected = None if moment is None else pd.Timestamp(f"2026-11-21T{moment}Z")
    found = [None if each is pd.NaT else each for each in read_jsonl(log)["timestamp"]]
    assert found == [expected] * 5
    times = [entry.time_ns for entry in read_entries(log)]
    assert times == [expected and expected.as_unit("ns").value] * 5


@pytest.mark.parametrize("step", ["Infinity", "-Infinity", "NaN", 10**400])
def test_a_step_that_is_not_finite_is_none(tmp_path, step_of, step):
    first, second = step_of(1, 1.0), step_of(2, 2.0)
    second["metadata"] |= {"step": step, "epoch": step}
    for number, record in enumerate((first, second), start=1):
        record["metadata"] |= {"run_id": "r", "attempt": number}
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, (first, second, {"step": step, "loss": 3.0}))))
    frame = read_jsonl(log)
    assert list(frame["step"].isna()) == [False, True, True]
    assert list(frame["epoch"].isna()) == [True] * 3
    assert list(frame["training.loss"][:2]) == [1.0, 2.0]  # nothing is superseded


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("nan", math.nan),
        ("-inf", -math.inf),
    ],
)
@pytest.mark.parametrize(
    "form", ['{"event":"a","measurements":{"x":%s},"metadata":{}}', '{"x":%s}']
)
def test_bare_numbers_that_json_does_not_have_are_read(tmp_path, form, text, number):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join([form % text, form % "1", BAD]))
    for count, (said,) in read_both(log):
        assert count == 2
        assert "no record in line 3 (" in said
    with pytest.warns(BadLinesWarning):
        column = read_jsonl(log)["a.x" if "event" in form else "x"]
    assert column.tolist() == pytest.approx([number, 1.0], nan_ok=True)
    with pytest.warns(BadLinesWarning):
        first, _ = list(read_entries(log))
    assert first.measurements == pytest.approx({"x": number}, nan_ok=True)


def test_a_comma_too_many_is_read_by_the_engine_only(tmp_path):
    """As `reading.md` says."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"x": 1,}\n' + BAD)
    frame, entries = read_both(log)
    assert frame[0] == 1
    assert "no record in line 2 (" in frame[1][0]
    assert entries[0] == 0
    assert "no record in lines 1, 2 (" in entries[1][0]


def test_a_gzip_file_without_the_suffix_is_told_how_it_must_be_called(tmp_path, step_of):
    log = tmp_path / "log.jsonl"
    log.write_bytes(gzip.compress(json.dumps(step_of(1, 1.0)).encode()))
    for count, said in read_both(log):
        assert count == 0
        assert len(said) == 1
        assert "it is gzipped: let its name end in .jsonl.gz" in said[0]


def test_a_line_can_be_as_long_for_both(tmp_path):
    log = tmp_path / "log.jsonl"
    texts = [b'{"x":1}' + b" " * (LONGEST_LINE + more - 7) for more in (0, 1)]
    log.write_bytes(b"\n".join(texts) + b"\n")
    for count, said in read_both(log):
        assert count == 1
        assert "no record in line 2 (longer than 16,777,216 bytes)" in said[0]


def test_an_empty_list_of_metrics_is_refused(tmp_path, step_of):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(step_of(1, 1.0)))
    with pytest.raises(ValueError, match=r"^metrics=\[\] names no metric\. Name some, or leave it"):
        read_jsonl(log, metrics=[])
    assert list(read_jsonl(log, metrics=iter(["training.loss"]))["training.loss"]) == [1.0]


def test_of_a_key_that_stands_twice_each_reader_takes_its_own(tmp_path):
    """The engine the first, as `reading.md` says; the parser of events the last."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "a.b", "measurements": {"x": 1, "x": 2}, "metadata": {}}')
    assert list(read_jsonl(log)["a.b.x"]) == [1.0]
    assert [entry.measurements for entry in read_entries(log)] == [{"x": 2}]


def test_both_warn_of_the_same_kind(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(BAD)
    for reader in (read_jsonl, lambda path: list(read_entries(path))):
        with pytest.warns(BadLinesWarning, match="no record in line 1"):
            reader(log)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("NaN", float("nan")),
        ("Infinity", float("inf")),
        ("-Infinity", float("-inf")),
        ("1180591620717411303424", 2.0**70),
        ("-1180591620717411303424", -(2.0**70)),
        *((text, None) for text in ("7", "1e3", "0x10", "1_000", " 1", "", "true", "nan", "inf")),
    ],
)
@pytest.mark.parametrize(
    "form", ['{"event":"a","measurements":{"x":%s},"metadata":{}}', '{"x":%s}']
)
def test_texts_that_are_numbers_are_those_that_json_has_no_number_for(tmp_path, form, text, number):
    log = tmp_path / "log.jsonl"
    log.write_text(form % json.dumps(text) + "\n" + form % "1")
    column = "a.x" if "event" in form else "x"
    assert read_jsonl(log)[column].tolist() == pytest.approx(
        [float("nan") if number is None else number, 1.0], nan_ok=True
    )
    entry = next(iter(read_entries(log)))
    kept = (entry.measurements | entry.metadata)["x"]
    assert kept == (text if number is None else pytest.approx(number, nan_ok=True))
