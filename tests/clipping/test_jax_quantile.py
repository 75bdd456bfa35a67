"""The quantile that is found by its bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipping.backends.jax_quantile import quantile
from clipping.records import Window

compiled = jax.jit(quantile, static_argnums=(1, 2))


def reference(norms, weights, q):
    """Linear interpolation between ranks: the share of the others' weight below a norm."""
    order = np.argsort(norms, kind="stable")
    below = np.cumsum(weights[order]) - weights[order]
    others = weights.sum() - weights[order]
    ranks = np.where(others > 0, below / np.where(others > 0, others, 1), 0.0)
    return np.interp(q, ranks, norms[order])


@pytest.mark.parametrize("count", [0, 300, 700])
def test_the_quantile_1_is_the_largest_norm_however_it_is_rounded(count):
    ring = np.random.default_rng(0).lognormal(size=(200, 512)).astype(np.float32)
    wanted = ring[:, :count].max(axis=1) if count else np.full(200, np.inf, np.float32)
    counts = jnp.full(200, count, jnp.int32)
    np.testing.assert_array_equal(compiled(Window(jnp.asarray(ring), counts), 1.0, 0.97), wanted)


@pytest.mark.parametrize("kind", ["distinct", "tied", "zeros", "huge"])
@pytest.mark.parametrize("decay", [1.0, 0.99, 0.6])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_quantile_is_that_of_the_definition(kind, decay, q):
    rng = np.random.default_rng(0)
    size, counts = 12, np.array([0, 1, 2, 7, 12, 13, 40])
    ring = rng.lognormal(sigma=2, size=(len(counts), size)).astype(np.float32)
    ring = {
        "distinct": ring,
        "tied": np.round(ring),
        "zeros": 0 * ring,
        "huge": np.float32(1e37) * np.minimum(ring, 30),
    }[kind]
    got = compiled(Window(jnp.asarray(ring), jnp.asarray(counts, jnp.int32)), q, decay)
    assert np.isinf(got[0])
    for row, count in enumerate(counts[1:], start=1):
        slots = np.arange(max(count - size, 0), count) % size  # the oldest first
        weights = decay ** np.arange(len(slots))[::-1].astype(float)
        wanted = reference(ring[row, slots].astype(float), weights, q)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-5, atol=0)
