"""The table of records, also of files that are being written."""

import gzip
import json

import pytest

from telemetry.viewer.logs import records as module
from telemetry.viewer.logs.bad_lines import BadLinesWarning


def steps(records):
    return [step for (step,) in records.rows("SELECT step FROM records ORDER BY rowid")]


def as_line(record):
    return json.dumps(record).encode() + b"\n"


def test_what_comes_later_is_read_when_asked(write, step_of, open_records):
    log = write("log.jsonl", [step_of(1, 1.0)])
    records = open_records(log, follow=True)
    assert records.refresh() == 0
    write("log.jsonl", [step_of(2, 1.0), step_of(3, 1.0)], mode="ab")
    assert records.refresh() == 2
    assert records.refresh() == 0
    assert steps(records) == [1, 2, 3]


def test_a_line_without_an_end_waits_for_it(write, step_of, open_records):
    log = write("log.jsonl", [step_of(1, 1.0)])
    records = open_records(log, follow=True)
    whole = as_line(step_of(2, 1.0))
    with log.open("ab") as file:
        file.write(whole[:20])
        file.flush()
        assert records.refresh() == 0
        file.write(whole[20:])
        file.flush()
        assert records.refresh() == 1
    assert records.bad_lines == [0]
    assert steps(records) == [1, 2]


def test_who_does_not_follow_reads_the_last_line_as_it_is(write, step_of, open_records, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(as_line(step_of(1, 1.0)) + as_line(step_of(2, 1.0)).rstrip())
    assert steps(open_records(log)) == [1, 2]
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    assert steps(open_records(packed)) == [1, 2]


def test_a_file_that_was_cut_is_read_anew(write, step_of, open_records):
    log = write("log.jsonl", [step_of(step, 1.0) for step in (1, 2, 3)])
    records = open_records(log, follow=True)
    write("log.jsonl", [step_of(7, 1.0)])
    records.refresh()
    assert steps(records) == [7]
    assert records.restarts == 1


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_file_that_was_written_anew_is_read_anew(write, step_of, open_records, steps):
    """In place, with as much as it had or more."""
    log = write("log.jsonl", [step_of(step, 2.5) for step in range(steps)])
    records = open_records(log, follow=True)
    write("log.jsonl", [step_of(step, 7.5) for step in range(3, 53)])
    records.refresh()
    assert records.restarts == 1
    assert records.rows("SELECT count(*), min(step) FROM records") == [(50, 3.0)]
    assert records.refresh() == 0
    assert records.restarts == 1


def test_a_file_in_the_place_of_another_is_read_anew(write, step_of, open_records, tmp_path):
    log = write("log.jsonl", [step_of(1, 1.0)])
    other = write("other.jsonl", [step_of(step, 1.0) for step in (5, 6)])
    records = open_records(log, follow=True)
    other.rename(log)
    assert records.refresh() == 1
    assert steps(records) == [5, 6]


def test_of_a_file_that_was_deleted_stays_what_was_read(write, step_of, open_records):
    log = write("log.jsonl", [step_of(1, 1.0)])
    records = open_records(log, follow=True)
    log.unlink()
    assert records.refresh() == 0
    assert steps(records) == [1]


def test_a_gzip_file_is_followed(step_of, open_records, tmp_path):
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress(as_line(step_of(1, 1.0))))
    records = open_records(log, follow=True)
    with log.open("ab") as file:
        file.write(gzip.compress(as_line(step_of(2, 1.0)) + as_line(step_of(3, 1.0))))
    assert records.refresh() == 2
    assert steps(records) == [1, 2, 3]


def test_bad_lines_are_counted_for_each_file(write, step_of, open_records):
    one = write("one.jsonl", [b"bad", step_of(1, 1.0), b"worse", b""])
    two = write("two.jsonl", [step_of(1, 1.0)])
    with pytest.warns(BadLinesWarning):
        records = open_records([one, two])
    assert records.bad_lines == [2, 0]


def test_many_bad_lines_are_counted_and_some_named(write, open_records):
    log = write("log.jsonl", [b"bad"] * 1000)
    with pytest.warns(BadLinesWarning, match=r"lines 1, 2, 3, 4, 5 and 995 more \(unexpected"):
        records = open_records(log)
    assert records.bad_lines == [1000]


def test_a_line_can_be_as_long_as_is_said_and_no_longer(open_records, tmp_path):
    longest = module.LONGEST_LINE
    frame = b'{"x":"%s"}'
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(frame % (b"y" * (longest + more - 8)) for more in (-1, 100)))
    with pytest.warns(BadLinesWarning, match=f"line 2 .longer than {longest:,} bytes"):
        records = open_records(log)
    assert records.rows("SELECT count(*) FROM records") == [(1,)]


def test_no_trace_is_left_in_the_working_directory(
    write, step_of, open_records, tmp_path, monkeypatch
):
    empty = tmp_path / "here"
    empty.mkdir()
    log = write("log.jsonl", [step_of(1, 1.0)])
    monkeypatch.chdir(empty)
    records = open_records(log)
    records.rows("SET memory_limit = '40MB'")
    records.rows("CREATE TABLE big AS SELECT hash(range) AS h FROM range(5_000_000)")
    assert records.rows("SELECT count(*) FROM (SELECT h FROM big ORDER BY h)") == [(5_000_000,)]
    assert list(empty.iterdir()) == []
