"""Lines of a log are events again, whoever wrote them and whatever happened to the file."""

import gzip
import json
import math
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from telemetry import Registry, SpanContext
from telemetry.viewer.logs import lines
from telemetry.viewer.logs.bad_lines import BadLinesWarning
from telemetry.viewer.logs.entries import entry_of, read_entries
from telemetry.viewer.logs.lines import Line

TIME = "2026-11-21T10:30:00.123456Z"
TIME_NS = 1795257000123456000
OURS = {"timestamp": TIME, "event": "training.step", "measurements": {}, "metadata": {}}


def entry(record):
    text = record if isinstance(record, str) else json.dumps(record)
    return entry_of(Line(Path("run.jsonl"), 7, text.encode()))


def test_a_record_of_ours_is_the_event_it_was():
    found = entry(OURS | {"measurements": {"loss": 2.5}, "metadata": {"step": 1, "run_id": "r"}})
    assert found == (
        Path("run.jsonl"),
        7,
        TIME_NS,
        ("training", "step"),
        {"loss": 2.5},
        {"step": 1, "run_id": "r"},
    )


def test_numbers_that_json_does_not_have_are_numbers_again():
    measured = {"a": "NaN", "b": ["-Infinity", "Infinity"], "c": str(2**70), "d": "12", "e": None}
    found = entry(OURS | {"measurements": measured, "metadata": {"name": "NaN"}})
    assert math.isnan(found.measurements.pop("a"))
    assert found.measurements == {"b": [-math.inf, math.inf], "c": 2**70, "d": "12", "e": None}
    assert found.metadata == {"name": "NaN"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("NaN", math.nan),
        ("nan", math.nan),
        ("-nan", math.nan),  # as C prints it
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("-inf", -math.inf),
        ("1e999", math.inf),
    ],
)
def test_numbers_that_json_does_not_have_may_be_bare(text, number):
    whole = f'{{"loss":{text},"big":[18446744073709551615,-9223372036854775808],"n\\"":"inf nan"}}'
    found = entry(whole)
    assert repr(found.measurements) == repr({"loss": number})
    assert found.metadata == {"big": [2**64 - 1, -(2**63)], 'n"': "inf nan"}
    ours = f'{{"event":"a.b","measurements":{{"x":{text}}},"metadata":{{"y":{text},"n":{2**70}}}}}'
    found = entry(ours)
    assert repr(found.measurements) == repr({"x": number})
    assert repr(found.metadata) == repr({"y": number, "n": float(2**70)})


def test_a_span_has_its_place_in_the_tree_again():
    ids = {"span_id": "00000000000000ff", "parent_id": None, "trace_id": "00000000000000ff"}
    found = entry(OURS | {"metadata": {"telemetry_span_context": ids}})
    assert found.metadata["telemetry_span_context"] == SpanContext(255, None, 255)
    assert type(found.metadata["telemetry_span_context"]) is SpanContext


@pytest.mark.parametrize(
    ("record", "event", "measurements", "metadata"),
    [
        (
            {"step": 3, "metrics": {"train": {"loss": 1.5, "acc/top1": 0.5}, "lr": "NaN"}},
            ("record",),
            {"train.loss": 1.5, "train.acc.top1": 0.5, "lr": math.nan},
            {"step": 3},
        ),
        (
            {"metric": "val/loss", "value": 2.5, "epoch": 1},
            ("record",),
            {"val.loss": 2.5},
            {"epoch": 1},
        ),
        (
            {"_type": "epoch_end", "epoch": 2, "train/loss": 2, "note": "x", "ok": True},
            ("epoch_end",),
            {"train.loss": 2, "ok": True},
            {"epoch": 2, "note": "x"},
        ),
        ({"event": "a..b", "loss": 1.0}, ("record",), {"loss": 1.0}, {"event": "a..b"}),
        ({"event": "a.b", "loss": 1.0}, ("a", "b"), {"loss": 1.0}, {}),
        ({"_type": "train/step", "loss": 1.0}, ("train", "step"), {"loss": 1.0}, {}),
        (
            {"event": "a..b", "measurements": {"loss": "NaN"}, "metadata": {"step": 3}},
            ("record",),
            {"loss": math.nan},
            {"step": 3, "event": "a..b"},
        ),
        (
            {"step": 1, "train": {"loss": 3.5, "note": "x", "best": {"acc": 1}}},
            ("record",),
            {"train.loss": 3.5, "train.best.acc": 1},
            {"step": 1, "train": {"note": "x"}},
        ),
        ({"step": 1, "measurements": {"x": 2}}, ("record",), {"measurements.x": 2}, {"step": 1}),
        ({"metrics": {"a": 1, "c": "x"}}, ("record",), {"a": 1}, {"metrics": {"c": "x"}}),
        ({"metrics": {"step": 9}, "step": 1}, ("record",), {"metrics.step": 9}, {"step": 1}),
        ({"metric": "a", "value": "x"}, ("record",), {}, {"metric": "a", "value": "x"}),
    ],
)
def test_a_record_of_another_program_is_read_for_its_metrics(record, event, measurements, metadata):
    found = entry(record)
    assert repr(found[2:]) == repr((None, event, measurements, metadata))


@pytest.mark.parametrize(
    ("record", "time_ns"),
    [
        ({"timestamp": TIME}, TIME_NS),
        ({"timestamp": "2026-11-21T11:30:00.123456+01:00"}, TIME_NS),
        ({"timestamp": "2026-11-21 10:30:00.123456"}, TIME_NS),
        ({"timestamp": 1795257000}, 1795257000_000_000_000),
        ({"time": 0.5}, 500_000_000),
        ({"ts": 1795257000.123457}, 1795257000_123457_000),
        ({"time": None, "_timestamp": "2026-11-21T10:30:00.123456Z"}, TIME_NS),
        ({"timestamp": "yesterday"}, None),
        ({"timestamp": "9999-01-01T00:00:00Z"}, None),
        ({"timestamp": -1}, None),
        ({"timestamp": True}, None),
        ({"timestamp": 1e300}, None),
        ({}, None),
    ],
)
def test_the_time_is_read_in_the_forms_that_logs_have(record, time_ns):
    assert entry(record | {"loss": 1.0}).time_ns == time_ns


def test_a_time_that_is_none_is_not_lost():
    assert entry({"timestamp": "yesterday", "loss": 1}).metadata == {"timestamp": "yesterday"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "no JSON object, but list"),
        ("5", "no JSON object, but int"),
        ('{"a":1', "unexpected end"),
        ('{"a":nano}', "invalid literal"),
        ('{"a":NaN', "unexpected"),
        ('{"a":NaN,"b":"\\ud800"}', "invalid literal|unexpected"),  # half a pair
        ('{"a":NaN,"b":"\x01"}', "invalid literal|unexpected"),
        ('{"a":NaN,"x":' + "[" * 200 + "]" * 200 + "}", "nested deeper than 100 levels"),
        ('{"a":' + "[" * 200 + "]" * 200 + "}", "nested deeper than 100 levels"),
        ("[" * 50_000 + "]" * 50_000, "nested deeper than 100 levels"),
    ],
)
def test_what_is_no_record_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        entry(text)


def test_bad_lines_are_left_out_and_named_once(tmp_path):
    log = tmp_path / "run.jsonl"
    good = json.dumps(OURS).encode()
    log.write_bytes(b"\n".join([b"", good, b"garbage", b"\xff\xfe", good, b"7", b' {"torn":']))
    with pytest.warns(BadLinesWarning) as caught:
        found = list(read_entries(log))
    assert [one.line for one in found] == [2, 5]
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith(f"{log}: no record in lines 3, 4, 6, 7 (")
    assert text.endswith("); left out.")


def test_a_warning_names_five_of_many_bad_lines(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text("7\n" * 2000)
    with pytest.warns(BadLinesWarning) as caught:
        assert list(read_entries(log)) == []
    assert str(caught[0].message) == (
        f"{log}: no record in lines 1, 2, 3, 4, 5 and 1,995 more "
        "(no JSON object, but int); left out."
    )


def test_who_wants_to_hear_of_bad_lines_hears_of_each(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text('[]\n{"loss":1}\n"x"\n')
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read_entries(log, on_bad=lambda *bad: heard.append(bad)))) == 1
    assert heard == [(1, "no JSON object, but list"), (3, "no JSON object, but str")]


def test_lines_may_end_as_on_windows_and_the_last_one_not_at_all(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_bytes(b'{"loss":1}\r\n{"loss":2}')
    assert [one.measurements["loss"] for one in read_entries(log)] == [1, 2]


def test_a_line_that_is_too_long_is_left_out_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    monkeypatch.setattr(lines, "CHUNK", 300)
    log = tmp_path / "run.jsonl"
    log.write_text('{"loss":1}\n{"x":"' + "y" * 5000 + '"}\n{"loss":2}\n')
    heard = []
    found = list(read_entries(log, on_bad=lambda *bad: heard.append(bad)))
    assert [(one.line, one.measurements["loss"]) for one in found] == [(1, 1), (3, 2)]
    assert heard == [(2, "longer than 1,000 bytes")]


def members(*texts):
    return b"".join(gzip.compress(text.encode()) for text in texts)


def test_a_gzip_file_of_several_members_is_one_log(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_bytes(members('{"loss":1}\n{"lo', 'ss":2}\n') + b"\0" * 10 + members('{"loss":3}\n'))
    assert [one.measurements["loss"] for one in read_entries(log)] == [1, 2, 3]


def test_a_gzip_file_that_is_still_written_is_read_as_far_as_it_goes(tmp_path):
    log, bus = tmp_path / "run.jsonl.gz", Registry()
    with handlers.attach("jsonl", registry=bus, path=log):
        for step in range(100):
            bus.execute(("training", "step"), {"loss": 0.5}, {"step": step})
        found = [one.metadata["step"] for one in read_entries(log)]
    assert found == list(range(100))


def test_a_gzip_file_that_is_damaged_is_read_up_to_there(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    whole = members(*(f'{{"step":{step},"loss":1}}\n' for step in range(100)))
    size = len(members('{"step":0,"loss":1}\n'))
    log.write_bytes(whole[: 10 * size] + b"\xff" * 30 + whole[10 * size :])
    heard = []
    found = list(read_entries(log, on_bad=lambda *bad: heard.append(bad)))
    assert [one.metadata["step"] for one in found] == list(range(10))
    ((number, reason),) = heard
    assert number == 11
    assert reason.startswith("the gzip file is damaged: ")


def test_damage_costs_no_line_before_it(tmp_path):
    """All of it is one piece for the decompressor, which tells of the damage first."""
    log = tmp_path / "run.jsonl.gz"
    text = "".join(f'{{"step":{step},"loss":1}}\n' for step in range(1000))
    data = bytearray(gzip.compress(text.encode(), compresslevel=1))
    data[-8] ^= 0xFF  # the checksum at the end
    log.write_bytes(data)
    found = list(read_entries(log, on_bad=lambda *bad: None))
    assert [one.metadata["step"] for one in found] == list(range(1000))


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_entries(tmp_path / "no.jsonl"))


def test_progress_is_told_in_bytes_of_the_file(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_bytes(members('{"loss":1}\n' * 1000))
    told = []
    list(read_entries(log, progress=told.append))
    assert sum(told) == log.stat().st_size


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats() | st.integers(-(2**80), 2**80) | st.booleans() | st.none()
nested = st.recursive(numbers | texts, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(
    st.lists(
        st.tuples(st.dictionaries(texts, numbers), st.dictionaries(texts, nested)), max_size=9
    ),
    st.integers(1, 60),
)
def test_what_the_handler_wrote_is_read_whatever_the_pieces(tmp_path_factory, events, chunk):
    log, bus = tmp_path_factory.mktemp("logs") / "run.jsonl", Registry()
    with handlers.attach("jsonl", registry=bus, path=log):
        for measurements, metadata in events:
            bus.execute(("a", "b"), measurements, metadata)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        found = list(read_entries(log))
    assert repr([one.measurements for one in found]) == repr([one for one, _ in events])
    assert [one.line for one in found] == list(range(1, len(events) + 1))
    written = [json.loads(line)["metadata"] for line in log.read_text().split("\n") if line]
    assert [one.metadata for one in found] == written
