"""Which files are meant, and what they are called."""

import os
from pathlib import Path

import pytest

from telemetry.viewer.logs.sources import find_logs, labels_of, newest_log


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Some logs, and files that are none."""
    monkeypatch.chdir(tmp_path)
    names = [
        "runs/b/metrics.jsonl",
        "runs/a/metrics.jsonl",
        "runs/a/old.jsonl.gz",
        "runs/a/notes.md",
    ]
    for name in (*names, "runs/a/deep/er/m.jsonl", "runs/c.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}\n")
    return tmp_path


def found(paths):
    return [(str(source.path), source.label) for source in find_logs(paths)]


def test_a_file_is_itself_whatever_it_is_called(tree):
    assert found("runs/c.json") == [("runs/c.json", "c")]
    assert found(Path("runs/a/old.jsonl.gz")) == [("runs/a/old.jsonl.gz", "old")]


def test_a_directory_is_all_its_logs(tree):
    assert found("runs") == [
        ("runs/a/deep/er/m.jsonl", "m"),
        ("runs/a/metrics.jsonl", "a/metrics"),
        ("runs/a/old.jsonl.gz", "old"),
        ("runs/b/metrics.jsonl", "b/metrics"),
    ]


def test_a_pattern_is_what_matches_it(tree):
    assert [path for path, _ in found("runs/*/metrics.jsonl")] == [
        "runs/a/metrics.jsonl",
        "runs/b/metrics.jsonl",
    ]
    assert [path for path, _ in found("runs/**/m.jsonl")] == ["runs/a/deep/er/m.jsonl"]
    assert [path for path, _ in found("runs/[b]")] == ["runs/b/metrics.jsonl"]


def test_a_file_whose_name_is_a_pattern_is_meant_before_what_it_matches(tree):
    Path("m[1].jsonl").write_text("")
    Path("m1.jsonl").write_text("")
    assert found("m[1].jsonl") == [("m[1].jsonl", "m[1]")]


def test_each_file_is_read_once_in_the_order_given(tree):
    assert [
        path for path, _ in found(["runs/b", "runs/a/metrics.jsonl", "runs/*/metrics.jsonl"])
    ] == [
        "runs/b/metrics.jsonl",
        "runs/a/metrics.jsonl",
    ]


def test_the_home_directory_is_known(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert found("~/runs/b") == [(f"{tree}/runs/b/metrics.jsonl", "metrics")]


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a/metrics.jsonl"], ["metrics"]),
        (["a/x/metrics.jsonl", "a/y/metrics.jsonl"], ["x/metrics", "y/metrics"]),
        (["a/x/m.jsonl", "b/x/m.jsonl", "b/m2.jsonl"], ["a/x/m", "b/x/m", "m2"]),
        (["a/m.jsonl", "a/m.jsonl.gz"], ["m.jsonl", "m.jsonl.gz"]),
        (["x.v1.json", "y"], ["x.v1", "y"]),
    ],
)
def test_labels_have_as_many_folders_as_it_takes(paths, labels):
    assert labels_of(tuple(map(Path, paths))) == labels


def test_the_newest_log_is_the_one_written_last(tree):
    for number, name in enumerate(["runs/a/old.jsonl.gz", "runs/b/metrics.jsonl"]):
        os.utime(name, (2e9 + number, 2e9 + number))
    assert newest_log(Path("runs")) == Path("runs/b/metrics.jsonl")
    Path("none").mkdir()
    with pytest.raises(FileNotFoundError, match="The directory 'none' has no log"):
        newest_log(Path("none"))


def test_a_path_of_another_type_is_refused(tree):
    with pytest.raises(TypeError, match=r"^A path must be a string or a Path, got 3\.$"):
        find_logs(["runs/b", 3])
    with pytest.raises(TypeError, match=r"^A log is named by a path or a list of paths, got None"):
        find_logs(None)


def test_labels_of_thousands_of_files_take_no_longer_for_each():
    """Compared with each other, these would take minutes."""
    paths = tuple(
        Path(f"/sweep/{group}/{run}/m.jsonl") for group in range(200) for run in range(200)
    )
    labels = labels_of(paths)
    assert labels[:2] == ["0/0/m", "0/1/m"]
    assert len(set(labels)) == 40_000
