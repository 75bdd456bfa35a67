"""Moving averages, against sums written out by hand."""

import math
import time
from fractions import Fraction

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer import clip, moving_average

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
CURVES = st.lists(NUMBERS, max_size=60)
WINDOWS = st.integers(2, 80)


def close(got, expected, scale):
    return got == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + scale))


def largest(values):
    return max(map(abs, values), default=0.0)


@given(CURVES, WINDOWS)
def test_the_mean_is_that_of_the_point_and_those_before_it(values, window):
    got = moving_average(values, window).tolist()
    for i, each in enumerate(got):
        part = values[max(0, i - window + 1) : i + 1]
        assert close(each, math.fsum(part) / len(part), largest(values))


@given(CURVES, WINDOWS)
def test_the_centered_mean_reaches_as_far_after_a_point_as_before_it(values, window):
    got = moving_average(values, window, "centered").tolist()
    for i, each in enumerate(got):
        part = values[max(0, i - window // 2) : i + (window - 1) // 2 + 1]
        assert close(each, math.fsum(part) / len(part), largest(values))


@given(CURVES, WINDOWS)
def test_the_median_is_that_of_the_window(values, window):
    got = moving_average(values, window, "median").tolist()
    for i, each in enumerate(got):
        assert close(each, np.median(values[max(0, i - window + 1) : i + 1]), 0)


@given(CURVES, WINDOWS)
def test_the_ema_weighs_all_points_and_its_weights_sum_to_one(values, window):
    keep = 1 - Fraction(2, window + 1)
    got = moving_average(values, window, "ema").tolist()
    total, weight = Fraction(0), Fraction(0)
    for each, value in zip(got, values, strict=True):
        total, weight = keep * total + Fraction(value), keep * weight + 1
        assert close(each, float(total / weight), largest(values))


def test_the_ema_is_debiased_at_its_start():
    assert moving_average([5.0, 5.0, 5.0], 100, "ema").tolist() == pytest.approx([5.0, 5.0, 5.0])


@pytest.mark.parametrize("mode", ["mean", "centered", "ema", "median"])
def test_what_is_not_finite_stays_and_takes_no_part(mode):
    values = [1.0, math.nan, 2.0, math.inf, 3.0, -math.inf, 4.0]
    finite = moving_average([1.0, 2.0, 3.0, 4.0], 2, mode).tolist()
    expected = [finite[0], math.nan, finite[1], math.inf, finite[2], -math.inf, finite[3]]
    np.testing.assert_array_equal(moving_average(values, 2, mode), expected)


@pytest.mark.parametrize("mode", ["mean", "centered", "median"])
def test_a_huge_loss_leaves_nothing_behind_once_it_is_out_of_the_window(mode):
    values = [1.0, 1e300, -1e16, *[0.1] * 20]
    assert moving_average(values, 3, mode)[-10:].tolist() == pytest.approx([0.1] * 10, rel=1e-12)


def test_the_mean_of_the_largest_numbers_does_not_overflow():
    assert moving_average([1.7e308] * 4, 4).tolist() == pytest.approx([1.7e308] * 4)


@pytest.mark.parametrize("window", [0, 1, None, np.int64(0)])
def test_no_window_smooths_nothing(window):
    assert moving_average([3.0, 1.0, 2.0], window).tolist() == [3.0, 1.0, 2.0]


def test_each_metric_of_each_run_is_smoothed_by_itself():
    frame = pd.DataFrame(
        {
            "run": ["a", "b", "a", "b", "a", "b"],
            "step": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
            "train.loss": [4.0, 100.0, 2.0, 300.0, np.nan, 500.0],
            "val.loss": [np.nan, np.nan, 1.0, np.nan, 3.0, np.nan],
        }
    )
    frame.attrs["metrics"] = ["train.loss", "val.loss"]
    smooth = moving_average(frame, 2)
    np.testing.assert_array_equal(smooth["train.loss"], [4.0, 100.0, 3.0, 200.0, np.nan, 400.0])
    np.testing.assert_array_equal(smooth["val.loss"], [np.nan, np.nan, 1.0, np.nan, 2.0, np.nan])
    assert smooth["step"].tolist() == frame["step"].tolist()
    assert smooth.attrs["metrics"] == ["train.loss", "val.loss"]
    assert frame["train.loss"].tolist()[2] == 2.0  # what was given is as it was


def test_rows_without_a_value_take_no_place_in_the_window():
    frame = pd.DataFrame({"loss": [1.0, np.nan, np.nan, np.nan, 3.0]})
    np.testing.assert_array_equal(
        moving_average(frame, 2)["loss"], [1.0, np.nan, np.nan, np.nan, 2.0]
    )


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        (-1, ValueError, "must not be negative, got -1. 0 smooths nothing."),
        (2.5, TypeError, "must be a whole number of points, got 2.5 (float). 0 smooths nothing."),
        ("20", TypeError, "must be a whole number of points, got '20' (str). 0 smooths nothing."),
        (True, TypeError, "must be a whole number of points, got True (bool). 0 smooths nothing."),
    ],
)
def test_a_wrong_window_is_refused(window, error, message):
    with pytest.raises(error) as caught:
        moving_average([1.0], window)
    assert str(caught.value) == f"The window of smoothing {message}"


def test_a_wrong_mode_is_refused():
    with pytest.raises(ValueError, match="one of mean, centered, ema, median, got 'gauss'"):
        moving_average([1.0], 2, "gauss")


@pytest.mark.parametrize("data", [[[1.0, 2.0]], "loss", [object()]])
def test_what_is_no_curve_is_refused(data):
    with pytest.raises(TypeError, match="moving_average takes"):
        moving_average(data, 2)


@pytest.mark.parametrize("mode", ["mean", "centered", "ema", "median"])
def test_a_million_points_take_about_a_second_at_most(mode):
    values = np.random.default_rng(0).normal(size=1_000_000)
    began = time.process_time()
    moving_average(values, 100, mode)
    assert time.process_time() - began < 5  # a loop in Python takes minutes


@pytest.mark.parametrize("mode", ["mean", "centered", "ema", "median"])
def test_values_near_the_end_of_floats_do_not_become_infinite(mode):
    np.testing.assert_allclose(moving_average([1.7e308] * 4, 3, mode), [1.7e308] * 4)
    np.testing.assert_allclose(moving_average([1.0, 2.0, 3.0], 10**20, mode)[-1], 2.0)


@pytest.mark.parametrize("mode", ["mean", "centered", "ema", "median"])
def test_a_window_can_be_longer_than_any_curve(mode):
    np.testing.assert_allclose(moving_average([1.0, 2.0, 3.0], 10**400, mode)[-1], 2.0)


@pytest.mark.parametrize("change", [moving_average, clip])
def test_what_has_columns_and_is_no_frame_of_pandas_is_refused(change):
    with duckdb.connect() as connection:
        table = connection.sql("SELECT 1.0 AS loss")
        with pytest.raises(TypeError) as caught:
            change(table, 2)
    assert str(caught.value) == (
        f"{change.__name__} takes the DataFrame that read_jsonl gives, got DuckDBPyRelation."
    )


def test_a_negative_window_of_numpys_is_negative():
    with pytest.raises(ValueError, match="must not be negative, got -3"):
        moving_average([1.0], np.int64(-3))
