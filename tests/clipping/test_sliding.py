import contextlib
import tracemalloc
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipping import sliding
from clipping.sliding import Anchor, empty, pack, push, quantile, sample_std, unpack

SIZES = [1, 2, 3, 5, 64]
QUANTILES = [1e-9, 0.05, 0.5, 0.95, 1.0]
DECAYS = [1.0, 0.99, 0.5]
SEQUENCES = {
    "noise": lambda rng, step, groups: rng.lognormal(size=groups),
    "ties": lambda rng, step, groups: rng.integers(0, 4, groups).astype(float),
    "constant": lambda rng, step, groups: np.full(groups, 3.0),
    "rising": lambda rng, step, groups: step + rng.random(groups),
    "falling": lambda rng, step, groups: 1e4 - step + rng.random(groups),
    "stairs": lambda rng, step, groups: np.full(groups, step // 7.0),
    "waves": lambda rng, step, groups: 2 + np.sin(step / 50) + 0.1 * rng.random(groups),
}


def expected_quantile(norms, q, decay):
    """The definition: rank = weight below / weight of the others, interpolated linearly."""
    if decay == 1:
        return np.quantile(norms, q)
    order = np.argsort(norms, kind="stable")
    weights = (decay ** np.arange(len(norms))[::-1])[order]
    below = np.concatenate(([0.0], np.cumsum(weights[:-1])))
    above = np.concatenate((np.cumsum(weights[:0:-1])[::-1], [0.0]))
    ranks = below / np.maximum(below + above, 1e-300)
    return np.interp(q, ranks, np.array(norms)[order])


def check(history, taken, q, decay):
    """Compare the statistics with those of lists of the norms that were taken in."""
    size = history.ring.shape[1]
    last = [norms[-size:] for norms in taken]
    quantiles = [expected_quantile(norms, q, decay) if norms else np.inf for norms in last]
    np.testing.assert_allclose(quantile(history, q, decay), quantiles, rtol=1e-9, atol=1e-12)
    if history.mean.shape[1]:
        stds = [np.std(norms, ddof=1) if len(norms) > 1 else np.inf for norms in last]
        np.testing.assert_allclose(sample_std(history), stds, rtol=1e-6, atol=1e-12)


def run(kind, *, groups, size, steps, q, decay, skipped=0.0, every=1):
    """Push a sequence, and check the statistics on the way."""
    rng = np.random.default_rng(size)
    history, taken = empty(groups, size, with_std=True), [[] for _ in range(groups)]
    for step in range(steps):
        norms, observed = SEQUENCES[kind](rng, step, groups), rng.random(groups) >= skipped
        history = push(history, norms, observed, q, decay)
        for group in observed.nonzero()[0]:
            taken[group].append(norms[group])
        if step % every == 0:
            check(history, taken, q, decay)
    return history


def arrays(history):
    return list(chain(history[:2], history.anchor, history.near, history[4:]))


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("q", QUANTILES)
@pytest.mark.parametrize("decay", DECAYS)
def test_statistics_of_long_sequences_of_norms(kind, q, decay):
    run(kind, groups=2, size=100, steps=310, q=q, decay=decay, skipped=0.1, every=17)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("q", QUANTILES)
@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("kind", ["noise", "ties"])
def test_statistics_of_small_windows(kind, size, q, decay):
    run(kind, groups=2, size=size, steps=3 * size + 4, q=q, decay=decay, skipped=0.1, every=2)


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(
        st.lists(
            st.tuples(st.sampled_from([0.0, 1.0, 1.5, 2.0]) | st.floats(0, 1e6), st.booleans()),
            min_size=2,
            max_size=2,
        ),
        max_size=40,
    ),
    size=st.sampled_from([1, 2, 3, 5, 9]),
    width=st.integers(2, 5),
    q=st.sampled_from(QUANTILES) | st.floats(0, 1),
    decay=st.sampled_from([1.0, 0.9, 0.5]),
)
def test_any_norms(steps, size, width, q, decay):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "WIDTH", width)  # so that few norms leave it often
        history, taken = empty(2, size, with_std=True), [[], []]
        for step in steps:
            norms, observed = (np.array(x) for x in zip(*step, strict=True))
            history = push(history, norms, observed, q, decay)
            for group in observed.nonzero()[0]:
                taken[group].append(norms[group])
            check_among(history, taken, q, decay)


def check_among(history, taken, q, decay):
    """Like `check`, where a rank may hit q but for rounding, between norms far apart."""
    size = history.ring.shape[1]
    last = [norms[-size:] for norms in taken]
    for norms, got in zip(last, quantile(history, q, decay), strict=True):
        if not norms:
            assert got == np.inf
            continue
        near = [expected_quantile(norms, min(max(q + e, 0), 1), decay) for e in (-1e-12, 1e-12)]
        slack = 1e-12 * max(norms)
        assert near[0] - slack <= got <= near[1] + slack
    stds = [np.std(norms, ddof=1) if len(norms) > 1 else np.inf for norms in last]
    np.testing.assert_allclose(sample_std(history), stds, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("decay", [1e-3, 1e-17, 1e-200])
def test_newest_norm_may_outweigh_all_others(decay):
    history = empty(1, 4)
    for norm in (1.0, 3.0, 5.0, 2.0, 4.0):
        history = push(history, np.array([norm]), np.array([True]), 0.5, decay)
    # Norms 2 (of age 1), 3, 4 (the newest), 5: 2 has rank 0 and 4 almost rank 1.
    got = quantile(history, 0.5, decay)[0]
    assert got == pytest.approx(expected_quantile([3.0, 5.0, 2.0, 4.0], 0.5, decay), rel=1e-9)


def test_equal_norms_leave_in_the_order_of_their_age():
    # Of three equal norms the weights differ: the wrong one dropped shifts the quantile.
    history, taken = empty(1, 150), [[]]
    for step in range(600):
        norms = np.array([1.0 if step % 3 else float(step % 2) * 2])
        history = push(history, norms, np.array([True]), 0.6, 0.97)
        taken[0].append(norms[0])
        check(history, taken, 0.6, 0.97)
        births = history.near.births[0, : history.anchor.length[0]]
        values = history.near.norms[0, : births.size]
        assert (np.lexsort((births, values)) == np.arange(births.size)).all()
        assert births.min() > step - 150  # nothing that has dropped out


def test_statistics_of_too_few_norms_are_infinite():
    history = empty(2, 4, with_std=True)
    history = push(history, np.array([3.0, 0.0]), np.array([True, False]), 0.5, 1.0)
    assert quantile(history, 0.5, 1.0).tolist() == [3.0, np.inf]
    assert sample_std(history).tolist() == [np.inf, np.inf]


def test_deviations_are_accurate_far_from_zero():
    rows = 1e6 + 1e-3 * np.random.default_rng(0).standard_normal((200, 2))
    history = empty(2, 90, with_std=True)
    for norms in rows:
        history = push(history, norms, np.array([True, True]), 0.5, 1.0)
    expected = np.std(rows[-90:] - 1e6, axis=0, ddof=1)
    np.testing.assert_allclose(sample_std(history), expected, rtol=1e-6)


def test_spike_that_has_left_leaves_no_trace():
    rows = np.random.default_rng(0).random((100, 1))
    seen = []
    for spike in (1e8, 0.5):
        history = empty(1, 50, with_std=True)
        for step, norms in enumerate(rows):
            taken = np.array([spike]) if step == 20 else norms
            history = push(history, taken, np.array([True]), 0.5, 1.0)
        seen.append(sample_std(history)[0])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("decay", [1.0, 0.999, 0.97, 0.5])
@pytest.mark.parametrize("kind", ["noise", "ties", "rising"])
def test_unpacked_history_continues_bit_identically(kind, decay):
    rng = np.random.default_rng(1)
    one, other = empty(4, 150, with_std=True), None
    for step in range(500):
        norms, observed = SEQUENCES[kind](rng, step, 4), rng.random(4) > 0.1
        one = push(one, norms, observed, 0.7, decay)
        if other is not None:
            other = push(other, norms, observed, 0.7, decay)
            assert same(one, other)
        if step in {30, 170, 313}:
            other = unpack(*pack(one), 0.7, decay, with_std=True)
            assert same(one, other)


@pytest.mark.parametrize("decay", [1.0, 0.97])
def test_history_unpacked_without_a_fitting_anchor_is_right(decay):
    rng, taken, history = np.random.default_rng(2), [[], [], []], empty(3, 150)
    for step in range(400):
        norms = SEQUENCES["noise"](rng, step, 3)
        history = push(history, norms, np.ones(3, bool), 0.5, decay)
        for group, norm in enumerate(norms):
            taken[group].append(norm)
        if step in {70, 200, 300}:
            ring, count, anchor = pack(history)
            far = Anchor(np.array([-1, 149, 999]), *anchor[1:])
            heavier = anchor._replace(below=anchor.below + 0.5)
            for wrong in (None, far, heavier, anchor._replace(length=anchor.length * 9)):
                history = unpack(ring, count, wrong, 0.5, decay)
                check(history, taken, 0.5, decay)
        check(history, taken, 0.5, decay)


@pytest.mark.parametrize("decay", [1.0, 0.97])
@pytest.mark.parametrize("place", ["_counted", "_edit", "_locate"])
def test_interrupted_push_is_repeated_on_an_unpacked_history(monkeypatch, place, decay):
    def interrupt(*args):
        raise KeyboardInterrupt

    rng, everywhere = np.random.default_rng(3), np.ones(2, bool)
    history, taken = empty(2, 100, with_std=True), [[], []]
    for step in range(300):
        norms = rng.lognormal(size=2)
        for group, norm in enumerate(norms):
            taken[group].append(norm)
        if step % 20 == 5:
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(sliding, place, interrupt)
                push(history, norms, everywhere, 0.5, decay)
            history = unpack(history.ring, history.count, None, 0.5, decay, with_std=True)
        history = push(history, norms, everywhere, 0.5, decay)
        check(history, taken, 0.5, decay)


def test_packed_arrays_are_not_written_to():
    history = run("noise", groups=2, size=20, steps=30, q=0.5, decay=0.9)
    packed = pack(history)
    before = [x.tobytes() for x in (*packed[:2], *packed[2])]
    for continued in (history, unpack(*packed, 0.5, 0.9, with_std=True)):
        push(continued, np.ones(2), np.ones(2, bool), 0.5, 0.9)
    assert [x.tobytes() for x in (*packed[:2], *packed[2])] == before


def test_memory_does_not_grow():
    def pushes(history, steps):
        for step in range(steps):
            norms = SEQUENCES["ties"](rng, step, 5)
            history = push(history, norms, np.ones(5, bool), 0.5, 0.99)
        return history

    rng = np.random.default_rng(4)
    history = pushes(empty(5, 128, with_std=True), 400)
    tracemalloc.start()
    try:
        history = pushes(history, 50)
        before, _ = tracemalloc.get_traced_memory()
        pushes(history, 400)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
