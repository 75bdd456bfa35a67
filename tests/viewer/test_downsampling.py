"""Fewer points, with the extremes."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer import downsample
from telemetry.viewer.frames.downsampling import keep


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 400),
    st.integers(5, 60),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_points_stay_in_order_with_the_ends_and_the_extremes(seed, count, points, broken):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=count)
    spoilt = rng.random(count) < broken
    y[spoilt] = rng.choice([math.nan, math.inf, -math.inf], size=spoilt.sum())
    kept = keep(np.arange(count, dtype=float), y, points)
    assert len(kept) <= min(points, count)
    assert (np.diff(kept) > 0).all()
    if count:
        assert {0, count - 1} <= set(kept.tolist())
    finite = y[np.isfinite(y)]
    if len(finite):
        assert {finite.min(), finite.max()} <= set(y[kept].tolist())
    assert np.isfinite(y).all() == np.isfinite(y[kept]).all()


@given(st.lists(st.floats(-100, 100), min_size=30, max_size=200), st.integers(6, 25))
def test_of_each_bucket_of_the_axis_the_lowest_and_the_highest_stay(values, points):
    x = np.cumsum(np.linspace(0.1, 3, len(values)))
    kept = set(keep(x, np.array(values), points).tolist())
    buckets = (points - 2) // 2
    width = (x[-1] - x[0]) / buckets
    for bucket in range(buckets):
        low, high = x[0] + bucket * width, x[0] + (bucket + 1) * width
        inside = [values[i] for i in range(len(x)) if low + 1e-9 < x[i] < high - 1e-9]
        known = [values[i] for i in kept if low - 1e-9 <= x[i] <= high + 1e-9]
        if inside:
            assert min(known) <= min(inside)
            assert max(known) >= max(inside)


def test_nothing_is_taken_from_a_short_curve():
    assert keep(None, np.arange(5.0), 5).tolist() == [0, 1, 2, 3, 4]
    assert keep(None, np.array([]), 5).tolist() == []


@pytest.mark.parametrize(
    "x", [None, np.zeros(100), np.tile(np.arange(50.0), 2), np.full(100, math.nan)]
)
def test_where_the_axis_tells_nothing_points_are_counted(x):
    y = np.zeros(100)
    y[[20, 70]] = 5, -5
    kept = keep(x, y, 12)
    assert {0, 20, 70, 99} <= set(kept.tolist())
    assert len(kept) <= 12


def test_a_frame_keeps_each_curve_by_itself():
    rows = 400
    frame = pd.DataFrame(
        {
            "run": np.repeat(["a", "b"], rows // 2),
            "step": np.tile(np.arange(rows / 2), 2),
            "loss": np.zeros(rows),
            "lr": np.where(np.arange(rows) % 10, np.nan, 1.0),
        }
    )
    frame.loc[77, "loss"] = 50.0
    frame.loc[277, "loss"] = -50.0
    frame.attrs["metrics"] = ["loss", "lr"]
    few = downsample(frame, 10)
    for run, spike in (("a", 50.0), ("b", -50.0)):
        curve = few.loc[few["run"] == run]
        assert 2 <= curve["loss"].notna().sum() <= 10
        assert 2 <= curve["lr"].notna().sum() <= 10
        assert spike in curve["loss"].tolist()
        assert curve["step"].is_monotonic_increasing
    assert few.attrs["metrics"] == ["loss", "lr"]
    assert len(frame) == rows


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [(4, ValueError, "must be 5 or more, got 4."), (2.5, TypeError, "got 2.5 (float).")],
)
def test_too_few_points_are_refused(points, error, message):
    with pytest.raises(error) as caught:
        downsample(pd.DataFrame({"loss": [1.0]}), points)
    assert message in str(caught.value)


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="downsample takes the DataFrame that read_jsonl gives"):
        downsample([1.0], 10)


def test_a_million_points_take_well_under_a_second():
    x = np.arange(1_000_000.0)
    began = time.process_time()
    assert len(keep(x, np.sin(x), 2000)) <= 2000
    assert time.process_time() - began < 5  # a loop in Python takes longer


@pytest.mark.parametrize(
    ("x_key", "message"),
    [
        ("stpe", "The axis 'stpe' is on no record. Axes: step, or a metric. Did you mean 'step'?"),
        ("run", "The axis 'run' has no numbers. Axes: step, or a metric."),
    ],
)
def test_an_axis_that_is_not_there_is_refused(x_key, message):
    frame = pd.DataFrame({"run": "a", "step": range(9), "loss": np.arange(9.0)})
    with pytest.raises(ValueError, match="The axis") as caught:
        downsample(frame, 6, x_key=x_key)
    assert str(caught.value) == message
