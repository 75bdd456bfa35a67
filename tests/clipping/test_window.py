import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipping.host import HOST
from clipping.window import empty, push, quantile, sample_std

norms_of_one_group = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@pytest.fixture(params=["host", "torch"])
def ops(request):
    if request.param == "host":
        return HOST
    torch = importlib.import_module("torch")
    from clipping.backends.torch_ops import TorchOps

    return TorchOps(torch.device("cpu"))


def filled(ops, rows, size, observed=None):
    """A window that rows of norms were pushed into, a column at a time."""
    window = empty(ops, len(rows), size)
    for index, column in enumerate(zip(*rows, strict=True)):
        taken = np.ones(len(rows), bool) if observed is None else np.array(observed[index])
        as_bool = ops.from_host(taken.astype(np.int64)) > 0
        window = push(ops, window, ops.from_host(np.array(column, float)), as_bool)
    return window


def weighted_reference(norms, q, decay):
    """Interpolate between ranks (share of the others' weight below), written as a loop."""
    aged = sorted((norm, decay**age) for age, norm in enumerate(reversed(norms)))
    ranks = []
    for index, (_, weight) in enumerate(aged):
        below = sum(w for _, w in aged[:index])
        others = sum(w for _, w in aged) - weight
        ranks.append(below / others if len(aged) > 1 else 0.0)
    return np.interp(q, ranks, [norm for norm, _ in aged])


@pytest.mark.parametrize("q", [0.0, 0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 30])
def test_quantile_is_numpys_percentile_of_the_last_norms(ops, q, count):
    rows = np.random.default_rng(count).lognormal(size=(3, count))
    got = ops.to_host(quantile(ops, filled(ops, rows, 8), q))
    np.testing.assert_allclose(got, np.percentile(rows[:, -8:], 100 * q, axis=1), rtol=1e-6)


@given(norms=norms_of_one_group, q=st.floats(0, 1), size=st.integers(1, 12))
def test_quantile_of_any_norms_is_numpys_percentile(norms, q, size):
    (got,) = quantile(HOST, filled(HOST, [norms], size), q)
    assert got == pytest.approx(np.percentile(norms[-size:], 100 * q), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("q", [0.1, 0.5, 0.95])
def test_quantile_weighs_by_age(ops, decay, q):
    norms = np.random.default_rng(0).lognormal(size=11)
    (got,) = ops.to_host(quantile(ops, filled(ops, [norms], 8), q, decay))
    assert got == pytest.approx(weighted_reference(norms[-8:].tolist(), q, decay), rel=1e-4)


@given(norms=norms_of_one_group, q=st.floats(0, 1), decay=st.floats(1e-6, 1))
def test_weighted_quantile_lies_among_the_norms(norms, q, decay):
    (got,) = quantile(HOST, filled(HOST, [norms], 12), q, decay)
    last = norms[-12:]
    assert min(last) <= got <= max(last) or got == pytest.approx(max(last), rel=1e-12)


def test_quantile_of_a_weighted_pair_by_hand(ops):
    # Norms 1, 2, 4 weigh 0.25, 0.5, 1: the ranks are 0, 0.25 / 1.25 = 0.2, and 1.
    window = filled(ops, [[1.0, 2.0, 4.0]], 4)
    got = [ops.to_host(quantile(ops, window, q, 0.5))[0] for q in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert got == pytest.approx([1.0, 1.5, 2.0, 3.0, 4.0], rel=1e-6)


def test_std_is_numpys_sample_standard_deviation(ops):
    rows = np.random.default_rng(1).lognormal(size=(3, 11))
    got = ops.to_host(sample_std(ops, filled(ops, rows, 8)))
    np.testing.assert_allclose(got, np.std(rows[:, -8:], axis=1, ddof=1), rtol=1e-5)


def test_statistics_of_too_few_norms_are_infinite(ops):
    none, one = empty(ops, 2, 4), filled(ops, [[3.0]], 4)
    assert ops.to_host(quantile(ops, none, 0.5)).tolist() == [math.inf, math.inf]
    assert ops.to_host(sample_std(ops, none)).tolist() == [math.inf, math.inf]
    assert ops.to_host(quantile(ops, one, 0.5)).tolist() == [3.0]
    assert ops.to_host(sample_std(ops, one)).tolist() == [math.inf]


def test_norms_that_are_not_observed_are_not_taken_in(ops):
    rows = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    observed = [(True, True), (False, True), (True, False)]
    window = filled(ops, rows, 4, observed)
    assert ops.to_host(window.count).tolist() == [2, 2]
    assert ops.to_host(window.ring)[:, :2].tolist() == [[1.0, 3.0], [10.0, 20.0]]


def test_norm_that_is_not_observed_drops_none_of_a_full_window(ops):
    window = filled(ops, [[1.0, 2.0, 3.0]], 2, [(True,), (True,), (False,)])
    assert ops.to_host(window.ring).tolist() == [[1.0, 2.0]]


def test_pushing_leaves_the_window_before_as_it_was(ops):
    before = filled(ops, [[1.0, 2.0]], 2)
    kept = ops.to_host(before.ring).copy()
    push(ops, before, ops.full((1,), 9.0), ops.full((1,), 1.0) > 0)
    assert ops.to_host(before.ring).tolist() == kept.tolist() == [[1.0, 2.0]]


def test_of_equal_norms_the_oldest_ranks_lowest(ops):
    """Of the weights 1/8, 1/4, 1/2, 1 the norm 5 has 1/2, and ties rank by age: by hand.

    Sorted: 0 (1/8), 0 (1/4), 0 (1), 5 (1/2). Ranks: 0, (1/8)/(13/8), (3/8)/(7/8), 1. The median
    lies (1/2 - 3/7) / (1 - 3/7) = 1/8 of the way from 0 to 5.
    """
    window = filled(ops, [[7.0, 0.0, 0.0, 5.0, 0.0]], 4)
    assert ops.to_host(quantile(ops, window, 0.5, 0.5)).tolist() == [pytest.approx(5 / 8)]


@pytest.mark.parametrize("decay", [0.5, 0.97])
def test_the_highest_quantile_is_the_largest_norm(ops, decay):
    """Also in float32, and where it is so old that it weighs next to nothing."""
    rows = np.random.default_rng(5).lognormal(sigma=1.5, size=(40, 512)).astype(np.float32)
    got = ops.to_host(quantile(ops, filled(ops, rows, 512), 1.0, decay))
    np.testing.assert_array_equal(got, rows.max(axis=1))
