import math

import numpy as np
import pytest

import clipping

EPS = 1e-8


def reference(norms, threshold_of, *, before, takes_clipped, warmup=0, least=1):
    """AutoClip from its definition: one norm after the other, in plain float64."""
    history, clipped, thresholds = [], [], []
    for step, norm in enumerate(norms):
        known = len(history)
        threshold = threshold_of(history if before else [*history, norm])
        acts = step >= warmup and known >= max(least, 1) and norm > threshold
        after = norm * (threshold / (norm + EPS)) if acts else norm
        history.append(after if takes_clipped else norm)
        clipped.append(after)
        thresholds.append(threshold)
    return np.array(clipped), np.array(thresholds)


def outlier(history):
    if len(history) < 2:
        return math.inf
    return np.median(history) + 3 * np.std(history, ddof=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("q", [10.0, 50.0, 95.0])
def test_percentile_of_a_window_is_that_of_the_last_norms_with_this_one(feed, percentile, q, seed):
    norms = np.random.default_rng(seed).lognormal(size=60)
    expected = reference(
        norms, lambda h: np.percentile(h[-16:], q), before=False, takes_clipped=False
    )
    got = feed(percentile(q, window_size=16), norms)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_auto_is_median_and_three_deviations_of_clipped_norms_before(feed, seed):
    norms = np.random.default_rng(seed).lognormal(sigma=1.5, size=80)
    expected = reference(norms, lambda h: outlier(h[-16:]), before=True, takes_clipped=True)
    clipper = clipping.AutoClip(window_size=16, warmup_steps=0, min_history=1)
    got = feed(clipper, norms)
    assert (got[0] < norms).sum() > 2
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_auto_with_default_gates_follows_the_definition(feed):
    norms = np.random.default_rng(5).lognormal(sigma=1.5, size=160)
    expected = reference(norms, outlier, before=True, takes_clipped=True, warmup=100, least=50)
    got = feed(clipping.AutoClip(), norms)
    assert (got[0] < norms).any()
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_ema_follows_its_definition(feed, percentile):
    def weighted(history):
        aged = sorted((norm, 0.9**age) for age, norm in enumerate(reversed(history[-32:])))
        weights = np.array([weight for _, weight in aged])
        below = np.cumsum(weights) - weights
        others = np.where(len(aged) > 1, weights.sum() - weights, 1.0)
        return np.interp(0.8, below / others, [norm for norm, _ in aged])

    norms = np.random.default_rng(0).lognormal(size=70)
    expected = reference(norms, weighted, before=False, takes_clipped=False)
    got = feed(percentile(80.0, history="ema", ema_decay=0.9, window_size=32), norms)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("q", [50.0, 90.0, 95.0])
def test_ema_converges_to_the_quantile(feed, percentile, q):
    """Exponential norms: an expectile would lie elsewhere (at 1 rather than 0.69 for q = 50)."""
    norms = np.random.default_rng(0).exponential(size=1500)
    _, thresholds = feed(percentile(q, history="ema", ema_decay=0.995), norms)
    expected = -math.log(1 - q / 100)
    assert thresholds[500:].mean() == pytest.approx(expected, rel=0.08)


def test_percentile_100_never_clips(feed, percentile):
    norms = np.random.default_rng(0).lognormal(size=40)
    clipped, thresholds = feed(percentile(100.0, window_size=8), norms)
    assert clipped.tolist() == norms.tolist()
    assert thresholds[-1] == norms[-8:].max()


def test_spike_is_cut_to_the_calm_threshold_and_forgotten(feed):
    calm = np.random.default_rng(0).normal(1.0, 0.02, size=200)
    after = np.random.default_rng(1).normal(1.0, 0.02, size=50)
    clipped, thresholds = feed(clipping.AutoClip(), [*calm, 1000.0, *after])
    assert thresholds[200] == pytest.approx(np.median(calm) + 3 * np.std(calm, ddof=1))
    assert clipped[200] == pytest.approx(thresholds[200])
    assert thresholds[200] < 1.1
    assert thresholds[201:].max() < 1.1


def test_step_without_history_is_never_clipped(feed):
    clipper = clipping.AutoClip(warmup_steps=0, min_history=0)
    clipped, thresholds = feed(clipper, [1e9, 2e9])
    assert clipped.tolist() == [1e9, 2e9]
    assert thresholds.tolist() == [math.inf, math.inf]


def test_first_steps_are_only_observed(feed, percentile):
    clipper = percentile(50.0, warmup_steps=5, min_history=1)
    clipped, thresholds = feed(clipper, range(1, 9))
    assert clipped[:5].tolist() == [1, 2, 3, 4, 5]
    assert thresholds.tolist() == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5]
    assert clipped[5:] == pytest.approx([3.5, 4, 4.5])


def test_history_must_be_long_enough(feed, percentile):
    clipped, _ = feed(percentile(50.0, min_history=3), range(1, 6))
    assert clipped == pytest.approx([1, 2, 3, 2.5, 3])


def test_non_finite_steps_count_as_steps_but_not_as_history(feed, percentile):
    clipper = percentile(50.0, warmup_steps=2, min_history=2)
    clipped, thresholds = feed(clipper, [1.0, math.nan, math.inf, 2.0, 3.0])
    assert clipped.tolist() == [1.0, 0.0, 0.0, 2.0, pytest.approx(2.0)]
    assert thresholds.tolist() == [1.0, 1.0, 1.0, 1.5, 2.0]


def test_equal_norms_are_not_clipped(feed, percentile):
    for clipper in (percentile(50.0), clipping.AutoClip(warmup_steps=0, min_history=1)):
        clipped, thresholds = feed(clipper, [0.3] * 20)
        assert clipped.tolist() == [0.3] * 20
        assert thresholds[-1] == 0.3


@pytest.mark.parametrize("history", ["window", "ema"])
def test_percentile_of_zeros_zeroes_nothing(feed, percentile, history):
    clipper = percentile(90.0, history=history)
    clipped, thresholds = feed(clipper, [0.0] * 60 + [5.0])
    assert clipped[-1] == 5.0
    assert thresholds.tolist() == [0.0] * 61


def test_history_of_zeros_gives_auto_no_threshold(feed):
    clipper = clipping.AutoClip(warmup_steps=0, min_history=1)
    clipped, thresholds = feed(clipper, [0.0] * 5 + [2.0])
    assert clipped[-1] == 2.0
    assert thresholds.tolist() == [math.inf] * 6


def test_threshold_is_infinite_before_the_first_step():
    assert clipping.AutoClip().threshold_any() == math.inf


def test_dry_run_reports_the_same_thresholds_and_leaves_the_gradients(feed):
    norms = np.random.default_rng(3).lognormal(sigma=1.5, size=60)
    options = {"warmup_steps": 0, "min_history": 1}
    clipped, thresholds = feed(clipping.AutoClip(**options), norms)
    left, observed = feed(clipping.AutoClip(**options, dry_run=True), norms)
    assert observed.tolist() == thresholds.tolist()
    assert left.tolist() == norms.tolist()
    assert (clipped < norms).any()
