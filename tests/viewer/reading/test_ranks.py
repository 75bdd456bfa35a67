"""Files that one attempt at a run has left, and ranks in one file, are never one line."""

import gzip
import json

import pytest

from telemetry.viewer import plot_metrics
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


def ranked(step_of, ranks, *, attempt=1, steps=(1, 2)):
    """What several ranks sent to one file: losses are ten times the attempt, and the rank."""
    return [
        step_of(s, 10.0 * attempt + (r or 0), run_id="r", attempt=attempt, rank=r)
        for s in steps
        for r in ranks
    ]


def test_ranks_in_one_file_are_lines_of_their_own(write, step_of):
    log = write("log.jsonl", ranked(step_of, (1, 0)))
    assert lines_of(read_jsonl(log)) == {
        "log rank 1": [(1, 11.0), (2, 11.0)],
        "log rank 0": [(1, 10.0), (2, 10.0)],
    }


def test_what_says_no_rank_is_of_the_lowest(write, step_of):
    log = write("log.jsonl", ranked(step_of, (None, 3, 1)))
    assert lines_of(read_jsonl(log)) == {
        "log rank 1": [(1, 10.0), (1, 11.0), (2, 10.0), (2, 11.0)],
        "log rank 3": [(1, 13.0), (2, 13.0)],
    }


@pytest.mark.parametrize("ranks", [(0,), (3,), (None, 0)])
def test_one_rank_in_a_file_is_no_part_of_its_name(write, step_of, ranks):
    log = write("log.jsonl", ranked(step_of, ranks))
    assert list(lines_of(read_jsonl(log))) == ["log"]


def test_attempts_on_other_ranks_are_one_run(write, step_of):
    """As when one process is left of two, and another one writes."""
    records = ranked(step_of, (0,)) + ranked(step_of, (1,), attempt=2, steps=(2, 3))
    log = write("log.jsonl", records)
    assert lines_of(read_jsonl(log)) == {"log": [(1, 10.0), (2, 21.0), (3, 21.0)]}


def test_each_rank_of_a_file_has_its_attempts(write, step_of):
    records = ranked(step_of, (0, 1)) + ranked(step_of, (0,), attempt=2, steps=(2, 3))
    log = write("log.jsonl", records)
    assert lines_of(read_jsonl(log)) == {
        "log rank 0": [(1, 10.0), (2, 20.0), (3, 20.0)],
        "log rank 1": [(1, 11.0), (2, 11.0)],
    }


def test_runs_in_one_file_have_their_ranks_behind_their_ids(write, step_of):
    others = [step_of(1, 5.0, run_id="other", rank=rank) for rank in (0, 1)]
    log = write("log.jsonl", [*ranked(step_of, (0,)), *others])
    assert list(lines_of(read_jsonl(log))) == ["r", "other rank 0", "other rank 1"]


def test_ranks_that_another_program_told_are_lines_too(write):
    records = [{"step": 1, "rank": rank, "metrics": {"training.loss": 1.0}} for rank in (0, 1)]
    log = write("log.jsonl", records)
    assert lines_of(read_jsonl(log)) == {"log rank 0": [(1, 1.0)], "log rank 1": [(1, 1.0)]}


def test_a_rank_that_is_no_number_is_none(write, step_of):
    records = [step_of(1, 1.0, rank="first"), step_of(2, 2.0, rank="second")]
    assert lines_of(read_jsonl(write("log.jsonl", records))) == {"log": [(1, 1.0), (2, 2.0)]}


def test_sql_sees_ranks_as_runs(write, step_of, open_records):
    records = open_records(write("log.jsonl", ranked(step_of, (0, 1))))
    make_views(records)
    assert records.rows(
        'SELECT run, max("training.loss") FROM metrics GROUP BY run ORDER BY 1'
    ) == [
        ("log rank 0", 10.0),
        ("log rank 1", 11.0),
    ]


def test_ranks_of_a_file_make_a_band(write, step_of):
    frame = read_jsonl(write("log.jsonl", ranked(step_of, (0, 1))))
    figure = plot_metrics(frame, ["training.loss"], band="minmax")
    (line,) = figure.axes[0].get_lines()
    assert line.get_ydata().tolist() == [10.5, 10.5]


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
