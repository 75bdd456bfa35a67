"""Clipping at percentiles, against sorted lists."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer import clip

CURVES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


def percentile(values, percent):
    """By linear interpolation between the sorted values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@given(CURVES, st.floats(0, 100))
def test_one_number_is_the_upper_limit_and_leaves_the_lowest_values(values, upper):
    limit = percentile(values, upper)
    expected = [min(value, limit) for value in values]
    assert clip(values, upper).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-3)
    assert clip(values, upper).min() == pytest.approx(min(values))


@given(CURVES, st.floats(0, 49), st.floats(51, 100))
def test_two_numbers_are_both_limits(values, lower, upper):
    low, high = percentile(values, lower), percentile(values, upper)
    expected = [min(max(value, low), high) for value in values]
    assert clip(values, (lower, upper)).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-3)


def test_none_is_no_limit():
    values = [float(n) for n in range(101)]
    assert clip(values, (10, None)).tolist() == [max(value, 10.0) for value in values]
    assert clip(values, (None, 90)).tolist() == [min(value, 90.0) for value in values]


def test_infinities_are_clamped_and_move_no_percentile():
    values = [1.0, 2.0, 3.0, math.inf, -math.inf, math.nan]
    np.testing.assert_array_equal(clip(values, 100), [1, 2, 3, 3, -math.inf, math.nan])
    np.testing.assert_array_equal(clip(values, (0, 100)), [1, 2, 3, 3, 1, math.nan])


def test_without_finite_values_nothing_is_changed():
    np.testing.assert_array_equal(clip([math.nan, math.inf], 50), [math.nan, math.inf])
    assert clip([], 50).tolist() == []


def test_each_run_has_percentiles_of_its_own():
    frame = pd.DataFrame({"run": list("aabb"), "loss": [1.0, 9.0, 100.0, 900.0]})
    assert clip(frame, 50)["loss"].tolist() == [1.0, 5.0, 100.0, 500.0]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (101, ValueError, "must be between 0 and 100, got 101."),
        ((-1, 50), ValueError, "must be between 0 and 100, got (-1, 50)."),
        (math.nan, ValueError, "must be between 0 and 100, got nan."),
        (True, TypeError, "must be a number, or a pair"),
        ("99", TypeError, "must be a number, or a pair"),
        ((1, 2, 3), TypeError, "must be a number, or a pair"),
    ],
)
def test_wrong_percentiles_are_refused(given, error, message):
    with pytest.raises(error) as caught:
        clip([1.0], given)
    assert message in str(caught.value)


def test_the_lower_limit_must_be_below_the_upper_one():
    with pytest.raises(ValueError, match=r"below the upper one, got \(99, 1\)"):
        clip([1.0], (99, 1))


def test_values_at_both_ends_of_floats_have_percentiles():
    clipped = clip([1.7e308, -1.7e308], (25, 75))
    np.testing.assert_allclose(clipped, [0.85e308, -0.85e308])
