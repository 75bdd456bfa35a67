"""Files that one attempt at a run has left are never one line."""

import gzip
import json

import pytest

from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.frames.views import make_views


def lines_of(frame):
    return {
        run: list(zip(group["step"], group["training.loss"], strict=True))
        for run, group in frame.groupby("run", observed=True, sort=False)
    }


@pytest.fixture
def attempt(write, step_of):
    """Write what an attempt left: its losses are ten times its number, and the rank."""

    def write_attempt(name, number, rank, steps):
        loss = 10.0 * number + rank
        write(name, [step_of(s, loss, run_id="r", attempt=number, rank=rank) for s in steps])

    return write_attempt


def test_files_of_one_name_in_folders_of_ranks(attempt, tmp_path):
    for rank in (0, 1):
        attempt(f"rank{rank}/metrics.jsonl", 1, rank, (1, 2))
    assert lines_of(read_jsonl(tmp_path)) == {
        "rank0/metrics": [(1, 10.0), (2, 10.0)],
        "rank1/metrics": [(1, 11.0), (2, 11.0)],
    }


@pytest.mark.parametrize(
    "path", ["try{attempt}/rank{rank}/m.jsonl", "rank{rank}/try{attempt}/m.jsonl"]
)
def test_the_attempts_of_a_rank_stay_together_by_its_folder(attempt, tmp_path, path):
    for number, steps in ((1, (1, 2)), (2, (2, 3))):
        for rank in (0, 1):
            attempt(path.format(attempt=number, rank=rank), number, rank, steps)
    assert lines_of(read_jsonl(tmp_path)) == {
        "r/rank0/m": [(1, 10.0), (2, 20.0), (3, 20.0)],
        "r/rank1/m": [(1, 11.0), (2, 21.0), (3, 21.0)],
    }


def test_a_copied_folder_is_a_run_of_its_own(attempt, tmp_path):
    for folder in ("runs/a", "backup/a"):
        attempt(f"{folder}/metrics.jsonl", 1, 0, (1,))
    assert list(lines_of(read_jsonl(tmp_path))) == ["backup/a/metrics", "runs/a/metrics"]


def test_a_file_beside_its_compressed_copy(attempt, tmp_path):
    attempt("m.jsonl", 1, 0, (1, 2))
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress((tmp_path / "m.jsonl").read_bytes()))
    assert lines_of(read_jsonl(tmp_path)) == {
        "m.jsonl": [(1, 10.0), (2, 10.0)],
        "m.jsonl.gz": [(1, 10.0), (2, 10.0)],
    }


def test_files_that_no_one_folder_tells_apart_are_each_by_itself(attempt, tmp_path):
    """Each name of a folder is that of two."""
    for folders in ("a/a", "a/b", "b/a", "b/b"):
        attempt(f"{folders}/m.jsonl", 1, 0, (1,))
    assert list(lines_of(read_jsonl(tmp_path))) == ["a/a/m", "a/b/m", "b/a/m", "b/b/m"]


def test_a_later_attempt_begins_with_its_training_and_not_where_a_validation_looks(write, step_of):
    first = [step_of(s, 1.0, run_id="r", attempt=1) for s in (1, 2, 3)]
    check = {"event": "val.step", "measurements": {"loss": 5.0}, "metadata": {"step": 0}}
    check["metadata"] |= {"run_id": "r", "attempt": 2}
    second = [step_of(s, 2.0, run_id="r", attempt=2) for s in (3, 4)]
    frame = read_jsonl(write("log.jsonl", [*first, check, *second]), metrics="training.loss")
    assert lines_of(frame) == {"log": [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]}


def test_an_attempt_without_steps_of_training_begins_with_its_lowest(write):
    def foreign(step, loss, attempt):
        metrics = {"training.loss": loss}
        return {"step": step, "run_id": "r", "attempt": attempt, "metrics": metrics}

    records = [foreign(1, 1.0, 1), foreign(2, 1.0, 1), foreign(2, 2.0, 2)]
    assert lines_of(read_jsonl(write("log.jsonl", records))) == {"log": [(1, 1.0), (2, 2.0)]}


def test_a_file_name_that_is_no_utf8_is_read_and_shown(step_of, tmp_path):
    name = tmp_path / b"\xff.jsonl".decode("utf-8", "surrogateescape")
    name.write_text(json.dumps(step_of(1, 2.5)))
    assert lines_of(read_jsonl(tmp_path)) == {"?": [(1, 2.5)]}


def test_sql_sees_a_file_name_that_is_no_utf8(step_of, tmp_path, open_records):
    name = tmp_path / b"\xff.jsonl".decode("utf-8", "surrogateescape")
    name.write_text(json.dumps(step_of(1, 2.5)))
    records = open_records(tmp_path)
    make_views(records)
    assert records.rows("SELECT source, run FROM records") == [(f"{tmp_path}/?.jsonl", "?")]
