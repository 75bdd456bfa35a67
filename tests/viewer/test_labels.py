"""What lines are called."""

import pandas as pd
import pytest

from telemetry.viewer.charts.labels import family_of, label_runs, shorten_labels


def frame(*runs, sources=()):
    made = pd.DataFrame({"run": list(runs)})
    made.attrs["sources"] = list(sources)
    return made


def test_runs_have_their_names():
    assert label_runs([frame("b", "a", "b"), frame("c")]) == [["b", "a"], ["c"]]


def test_files_of_one_name_are_told_apart_by_their_folders():
    frames = [frame("metrics", sources=[f"/logs/{each}/metrics.jsonl"]) for each in "ab"]
    assert label_runs(frames) == [["a/metrics"], ["b/metrics"]]


def test_runs_of_one_name_are_numbered_where_nothing_tells_them_apart():
    assert label_runs([frame("a"), frame("a")]) == [["a (1)"], ["a (2)"]]
    same = [frame("metrics", sources=["/x/metrics.jsonl"]) for _ in range(2)]
    first, second = label_runs(same)
    assert first != second
    assert label_runs([frame("a"), frame("a (1)"), frame("a")]) == [["a (2)"], ["a (1)"], ["a (3)"]]


def test_given_labels_are_numbered_unless_runs_can_share_them():
    frames = [frame("a"), frame("b")]
    assert label_runs(frames, ["x", "x"]) == [["x (1)"], ["x (2)"]]
    assert label_runs(frames, ["x", "x"], shared=True) == [["x"], ["x"]]


def test_labels_are_of_frames_or_of_runs():
    assert label_runs([frame("a"), frame("b")], ["x", "y"]) == [["x"], ["y"]]
    assert label_runs([frame("a", "b")], ["x", "y"]) == [["x", "y"]]
    assert label_runs([frame("r0", "r1"), frame("c")], ["x", "y"]) == [["x r0", "x r1"], ["y"]]
    assert label_runs([frame("a", "b"), frame("c")], ["x", "y", "z"]) == [["x", "y"], ["z"]]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["x"], ValueError, "got 1 for 2 runs: ['x']."),
        (["x", "y", "z"], ValueError, "got 3 for 2 runs"),
        ("xy", TypeError, "labels must be a list of strings, got 'xy'."),
        ([1, 2], TypeError, "A label must be a string, got 1 (int)."),
    ],
)
def test_wrong_labels_are_refused(labels, error, message):
    with pytest.raises(error) as caught:
        label_runs([frame("a"), frame("b")], labels)
    assert message in str(caught.value)


def test_long_labels_are_cut_in_the_middle_and_stay_different():
    long = ["x" * 30 + number + "y" * 80 for number in "12"]
    short = shorten_labels([*long, "short"])
    assert len(set(short)) == 3
    assert short[2] == "short"
    assert all(len(label) < 110 and "…" in label for label in short[:2])
    assert len(shorten_labels(["y" * 500])[0]) == 40


def test_equal_labels_stay_equal():
    assert shorten_labels(["a" * 50, "a" * 50])[0] == shorten_labels(["a" * 50])[0]


def test_labels_are_one_printable_line():
    assert shorten_labels(["a\nb\x1b[31m\udc80"]) == ["a\\nb\\x1b[31m\\udc80"]


@pytest.mark.parametrize(
    ("label", "family"),
    [
        ("digits-seed1", "digits-seed*"),
        ("digits-Seed=12/metrics-3", "digits-Seed=*/metrics-3"),
        ("lr0.1-2", "lr0.1-*"),
        ("7/metrics", "*/metrics"),
        ("plain", "plain"),
    ],
)
def test_seeds_of_a_run_have_a_family(label, family):
    assert family_of(label) == family


def test_the_end_of_a_decimal_is_no_number_of_its_own():
    assert family_of("lr0.15") == "lr0.15"
    assert family_of("lr1e-4") == "lr1e-4"
    assert family_of("lr0.1-12") == "lr0.1-*"
    assert family_of("run12") == "run*"
