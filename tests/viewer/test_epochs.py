"""Steps that begin anew in each epoch."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer import global_step


def counted(epochs, steps, run=None):
    frame = pd.DataFrame({"epoch": np.array(epochs, float), "step": np.array(steps, float)})
    if run:
        frame["run"] = run
    return global_step(frame)["step"].tolist()


@given(st.integers(2, 6), st.integers(3, 30), st.sampled_from([0, 1]), st.integers(0, 1))
def test_epochs_follow_one_another(epochs, length, first_step, first_epoch):
    numbers = np.repeat(np.arange(epochs) + first_epoch, length)
    steps = np.tile(np.arange(length) + first_step, epochs)
    assert counted(numbers, steps) == [float(n + first_step) for n in range(epochs * length)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([10, 20, 30, 10, 20, 30], [10, 20, 30, 40, 50, 60]),
        ([0, 10, 20, 0, 10, 20], [0, 10, 20, 30, 40, 50]),
        ([9, 19, 29, 9, 19, 29], [9, 19, 29, 39, 49, 59]),
        ([100, 100, 100, 100, 100, 100], [100, 100, 100, 200, 200, 200]),
    ],
)
def test_the_distance_between_logged_steps_goes_on(steps, expected):
    assert counted([1, 1, 1, 2, 2, 2], steps) == expected


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_steps_that_count_on_stay_as_they_are(lengths):
    epochs = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.arange(sum(lengths)) + 1.0
    assert counted(epochs, steps) == steps.tolist()


def test_an_evaluation_at_the_end_of_an_epoch_does_not_look_like_a_restart():
    epochs = [1, 1, 1, 2, 2, 2, 3]
    steps = [10, 20, 20, 20, 30, 40, 40]
    assert counted(epochs, steps) == steps


def test_fractions_of_an_epoch_are_of_it():
    assert counted([0.5, 1.0, 1.5, 2.0], [50, 100, 150, 200]) == [50, 100, 150, 200]
    assert counted([1.0, 1.5, 2.0, 2.5], [1, 2, 1, 2]) == [1, 2, 3, 4]


def test_a_row_without_an_epoch_is_of_the_one_before_it():
    assert counted([np.nan, 1, np.nan, 2, np.nan], [1, 2, 3, 1, 2]) == [1, 2, 3, 4, 5]


def test_a_row_without_a_step_stays_without():
    got = counted([1, 1, 1, 2, 2], [1, 2, np.nan, 1, 2])
    np.testing.assert_array_equal(got, [1, 2, np.nan, 3, 4])


@pytest.mark.parametrize("last", [4, 30])
def test_epochs_of_other_lengths_follow_one_another(last):
    steps = [*range(1, 11), *range(1, last + 1)]
    assert counted([1] * 10 + [2] * last, steps) == list(range(1, 11 + last))


def test_a_stray_low_step_in_each_epoch_is_no_restart():
    epochs = np.repeat([1, 2, 3], 11)
    steps = [*range(1, 11), 1, *range(11, 21), 2, *range(21, 31), 3]
    assert counted(epochs, steps) == steps


def counted_with_events(rows):
    frame = pd.DataFrame(rows, columns=["event", "epoch", "step"])
    frame["event"] = frame["event"].astype("category")
    return global_step(frame)["step"].tolist()


@pytest.mark.parametrize(
    ("event", "expected"),
    [("training.step", [100, 200, 300, 400]), ("less.frequent", [100, 200, 100, 200])],
)
def test_the_training_says_how_steps_go_else_what_is_most_frequent(event, expected):
    rows = [(event, epoch, step) for epoch in (1, 2) for step in (100, 200)]
    rows += [("x.y", 1 + step // 5, step) for step in range(1, 10)]
    assert counted_with_events(rows)[:4] == expected


def test_each_run_is_looked_at_by_itself():
    got = counted([1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 1, 3, 2, 4], run=list("abababab"))
    assert got == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("columns", [{"step": [2.0, 1.0]}, {"epoch": [1.0, 2.0]}, {"loss": [1.0]}])
def test_without_both_columns_nothing_is_changed(columns):
    frame = pd.DataFrame(columns)
    pd.testing.assert_frame_equal(global_step(frame), frame)


def test_a_frame_without_epochs_in_it_stays_as_it_is():
    assert counted([np.nan, np.nan], [2, 1]) == [2, 1]


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="global_step takes the DataFrame that read_jsonl gives"):
        global_step([1])
