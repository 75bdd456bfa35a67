"""Which records are one run."""

import math
from pathlib import Path

import pytest

from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.logs.parts import Part, Start
from telemetry.viewer.logs.runs import find_runs, tell_runs
from telemetry.viewer.logs.sources import Source


def lines_of(frame, name="training.loss"):
    """Each run's points."""
    some = frame[frame[name].notna()]
    return {
        run: list(zip(group["step"], group[name], strict=True))
        for run, group in some.groupby("run", observed=True, sort=False)
    }


def test_each_file_is_a_run_named_after_it(write, step_of):
    one = write("one.jsonl", [step_of(1, 2.5)])
    two = write("two.jsonl", [step_of(1, 3.5)])
    assert lines_of(read_jsonl([two, one])) == {"two": [(1, 3.5)], "one": [(1, 2.5)]}


def test_files_of_one_name_are_told_apart_by_their_folders(write, step_of, tmp_path):
    write("a/metrics.jsonl", [step_of(1, 1.0)])
    write("b/metrics.jsonl", [step_of(1, 2.0)])
    assert list(lines_of(read_jsonl(tmp_path))) == ["a/metrics", "b/metrics"]
    assert list(lines_of(read_jsonl(f"{tmp_path}/*/metrics.jsonl"))) == ["a/metrics", "b/metrics"]


def test_a_later_attempt_is_valid_from_its_first_step_on(write, step_of):
    first = [step_of(step, 1.0, run_id="r", attempt=1) for step in (1, 2, 3, 4)]
    second = [step_of(step, 2.0, run_id="r", attempt=2) for step in (3, 4, 5)]
    frame = read_jsonl(write("log.jsonl", [*first, *second]))
    assert lines_of(frame) == {"log": [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]}


def test_a_third_attempt_that_goes_back_further_is_valid_from_there(write, step_of):
    records = [step_of(s, 1.0, run_id="r", attempt=1) for s in (1, 2, 3, 4)]
    records += [step_of(s, 2.0, run_id="r", attempt=2) for s in (4, 5)]
    records += [step_of(s, 3.0, run_id="r", attempt=3) for s in (2, 3)]
    frame = read_jsonl(write("log.jsonl", records))
    assert lines_of(frame) == {"log": [(1, 1.0), (2, 3.0), (3, 3.0)]}


def test_attempts_in_files_of_their_own_are_one_run(write, step_of, tmp_path):
    # By name, the later attempt comes first.
    write("z.jsonl", [step_of(s, 1.0, run_id="r", attempt=1) for s in (1, 2, 3)])
    write("a.jsonl", [step_of(s, 2.0, run_id="r", attempt=2) for s in (3, 4)])
    frame = read_jsonl(tmp_path)
    assert lines_of(frame) == {"r": [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]}


def test_records_without_a_step_are_of_every_attempt(write, step_of):
    note = {"event": "note", "measurements": {"x": 1}, "metadata": {"run_id": "r", "attempt": 1}}
    records = [step_of(2, 1.0, run_id="r", attempt=1), note]
    records += [step_of(1, 2.0, run_id="r", attempt=2)]
    frame = read_jsonl(write("log.jsonl", records))
    assert list(frame["event"]) == ["note", "training.step"]


def test_several_runs_in_one_file_are_told_by_their_ids(write, step_of):
    records = [
        step_of(1, 1.0, run_id="a"),
        step_of(1, 2.0, run_id="b"),
        step_of(2, 1.5, run_id="a"),
    ]
    frame = read_jsonl(write("log.jsonl", records))
    assert lines_of(frame) == {"a": [(1, 1.0), (2, 1.5)], "b": [(1, 2.0)]}


def test_ranks_are_lines_of_their_own(write, step_of, tmp_path):
    for rank in range(2):
        records = [step_of(1, float(rank), run_id="r", attempt=1, rank=rank)]
        write(f"metrics.rank{rank}.jsonl", records)
    assert lines_of(read_jsonl(tmp_path)) == {
        "metrics.rank0": [(1, 0.0)],
        "metrics.rank1": [(1, 1.0)],
    }


def test_attempts_of_ranks_stay_with_their_rank(write, step_of, tmp_path):
    for rank in range(2):
        for attempt, steps in ((1, (1, 2)), (2, (2, 3))):
            records = [
                step_of(s, 10.0 * attempt + rank, run_id="r", attempt=attempt) for s in steps
            ]
            write(f"try{attempt}/metrics.rank{rank}.jsonl", records)
    assert lines_of(read_jsonl(tmp_path)) == {
        "r/metrics.rank0": [(1, 10.0), (2, 20.0), (3, 20.0)],
        "r/metrics.rank1": [(1, 11.0), (2, 21.0), (3, 21.0)],
    }


def test_a_record_without_a_run_beside_one_with_is_a_run_of_the_file(write, step_of):
    frame = read_jsonl(write("log.jsonl", [step_of(1, 1.0), step_of(1, 2.0, run_id="b")]))
    assert lines_of(frame) == {"log": [(1, 1.0)], "b": [(1, 2.0)]}


def test_no_two_runs_have_the_same_label(write, step_of):
    log = write("b.jsonl", [step_of(1, 1.0), step_of(1, 2.0, run_id="b")])
    assert lines_of(read_jsonl(log)) == {"b": [(1, 1.0)], "b (2)": [(1, 2.0)]}


def test_a_name_that_looks_like_sql_is_a_name(write, step_of):
    records = [step_of(1, 1.0, run_id="'); DROP TABLE records --"), step_of(1, 2.0, run_id="it's")]
    frame = read_jsonl(write("a'b.jsonl", records))
    assert list(lines_of(frame)) == ["'); DROP TABLE records --", "it's"]


def test_a_step_that_is_no_number_supersedes_nothing(write, step_of):
    records = [step_of(1, 1.0, run_id="r", attempt=1), step_of(2, 2.0, run_id="r", attempt=2)]
    records[1]["metadata"]["step"] = "NaN"
    frame = read_jsonl(write("log.jsonl", records))
    assert list(frame["training.loss"]) == [1.0, 2.0]
    assert math.isnan(frame["step"][1])


def test_what_was_superseded_is_still_told(write, step_of, open_records):
    first = [step_of(step, 1.0, run_id="r", attempt=1) for step in (1, 2)]
    log = write("log.jsonl", [*first, step_of(2, 2.0, run_id="r", attempt=2)])
    records = open_records(log)
    assert find_runs(records) == ("log",)
    assert records.rows("SELECT step, attempt, superseded FROM told ORDER BY rowid") == [
        (1.0, 1, False),
        (2.0, 1, True),
        (2.0, 2, False),
    ]


def part(run_id, attempt, step):
    start = None if step is None else Start(step)
    return Part(0, run_id, attempt, None, start, begins_anew=False, trains=start is not None)


@pytest.mark.parametrize(
    ("parts", "labels", "told"),
    [
        ([], [], []),
        ([part(None, None, None)], ["a"], [("a", None)]),
        ([part("r", 1, 5.0), part("r", 2, None)], ["a"], [("a", None), ("a", None)]),
        ([part("r", None, 1.0), part("r", 1, 4.0)], ["a"], [("a", Start(4.0)), ("a", None)]),
    ],
)
def test_parts_are_told(parts, labels, told):
    sources = [Source(Path(f"{label}.jsonl"), label) for label in labels]
    assert [(each.run, each.until) for each in tell_runs(parts, sources)] == told


@pytest.mark.parametrize("metrics", [None, "training.loss"])
def test_rows_stay_in_the_order_of_the_file(write, step_of, metrics):
    parts = [(f"r{n % 7}", n // 7) for n in range(40)]
    steps = [(10 * attempt + s, run, attempt) for run, attempt in parts for s in (1, 2)]
    records = [step_of(s % 60, 1.0, run_id=run, attempt=attempt) for s, run, attempt in steps]
    frame = read_jsonl(write("log.jsonl", records), metrics=metrics)
    assert list(frame["run"]) == [run for _, run, _ in steps]
    assert list(frame["step"]) == [step for step, *_ in steps]
