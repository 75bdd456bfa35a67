"""The quantile of each group's norms without sorting them, which XLA is slow at on a CPU.

The bits of floats that are not negative are ordered as integers, so a quantile is found by
deciding on two of its bits at a time, for all groups at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from clipping.records import Array, Window

_BITS = 32
_INFINITY = 0x7F800000


def quantile(window: Window, q: float, decay: float) -> Array:
    """What `clipping.window.quantile` computes; of equal norms the oldest counts as the smallest.

    Args:
        window: The norms.
        q: In [0, 1].
        decay: In (0, 1]; a norm weighs ``decay ** age``.

    Returns:
        Floats of shape [groups]; infinity where there is no norm.
    """
    weighed = _weigh(window, decay)
    if q == 1:  # whose rank, a quotient of sums, may come out below 1
        largest = _last(weighed, jnp.full_like(weighed.norms[:, 0], math.inf))
        return jnp.where(window.count > 0, largest, math.inf)
    total = jnp.sum(weighed.weights, axis=-1)
    value = _last(weighed, _highest(weighed, q * total))
    own, upper, lower = (_Tied.of(weighed, x) for x in (value, *_neighbours(weighed, value)))
    # The norm at or below the quantile is among those of this value, or the one before them.
    reached = own.below <= q * (total - own.oldest)
    low = jax.tree.map(lambda a, b: jnp.where(reached, a, b), own, lower)
    high = jax.tree.map(lambda a, b: jnp.where(reached, a, b), upper, own)
    start, end = (
        low.last / _positive(total - low.newest),
        high.below / _positive(total - high.oldest),
    )
    share = jnp.clip((q - start) / _positive(end - start), 0.0, 1.0)
    apart = (high.value > low.value) & (high.value < math.inf)
    found = low.value + share * jnp.where(apart, high.value - low.value, 0.0)
    return jnp.where(window.count > 0, found, math.inf)


class _Weighed(NamedTuple):
    """Norms and their weights, of shape [groups, size]; infinity and 0 where there is none."""

    norms: Array
    weights: Array


class _Tied(NamedTuple):
    """Equal norms, of shape [groups].

    Attributes:
        value: The norm; infinity or 0 where there is no such.
        below: The weight of the smaller ones.
        last: The same and that of all of them but the newest.
        oldest: The weight of the oldest.
        newest: The weight of the newest.
    """

    value: Array
    below: Array
    last: Array
    oldest: Array
    newest: Array

    @classmethod
    def of(cls, weighed: _Weighed, value: Array) -> _Tied:
        """Those of a value of each group."""
        norms, weights = weighed
        same = norms == value[:, None]
        newest = jnp.max(jnp.where(same, weights, 0.0), axis=-1)
        oldest = jnp.min(jnp.where(same, weights, newest[:, None]), axis=-1)
        below = jnp.sum(jnp.where(norms < value[:, None], weights, 0.0), axis=-1)
        upto = below + jnp.sum(jnp.where(same, weights, 0.0), axis=-1)
        return cls(value, below, upto - newest, oldest, newest)


def _weigh(window: Window, decay: float) -> _Weighed:
    size = window.ring.shape[-1]
    slots = jnp.arange(size, dtype=jnp.int32)
    filled = slots < window.count[:, None]
    if decay == 1:
        weights = jnp.where(filled, jnp.float32(1), 0)
    else:
        age = (window.count[:, None] - 1 - slots) % size
        weights = jnp.where(filled, jnp.exp(age.astype(jnp.float32) * math.log(decay)), 0)
    return _Weighed(jnp.where(filled, jnp.abs(window.ring), math.inf), weights)


def _highest(weighed: _Weighed, most: Array) -> Array:
    """The largest number that norms of at most some weight are smaller than."""
    bits = jax.lax.bitcast_convert_type(weighed.norms, jnp.int32)

    def decide(step: Array, found: Array) -> Array:
        shift = _BITS - 2 - 2 * step
        tries = [found | jnp.left_shift(jnp.int32(digit), shift) for digit in (1, 2, 3)]
        for candidate in tries:  # ascending, so the last that holds is the largest
            below = jnp.sum(jnp.where(bits < candidate[:, None], weighed.weights, 0.0), axis=-1)
            # The sign's bit is never set.
            found = jnp.where((below <= most) & (candidate > 0), candidate, found)
        return found

    start = jnp.zeros_like(bits[:, 0])
    found: Any = jax.lax.fori_loop(0, _BITS // 2, decide, start)
    return jax.lax.bitcast_convert_type(jnp.minimum(found, _INFINITY), jnp.float32)


def _last(weighed: _Weighed, bound: Array) -> Array:
    """The largest norm that is no larger than a bound."""
    norms = weighed.norms
    known = (norms <= bound[:, None]) & (norms < math.inf)
    return jnp.max(jnp.where(known, norms, 0.0), axis=-1)


def _neighbours(weighed: _Weighed, value: Array) -> tuple[Array, Array]:
    """The next larger norm, or infinity, and the next smaller one, or 0."""
    norms, at = weighed.norms, value[:, None]
    upper = jnp.min(jnp.where(norms > at, norms, math.inf), axis=-1)
    return upper, jnp.max(jnp.where(norms < at, norms, 0.0), axis=-1)


def _positive(x: Array) -> Array:
    return jnp.where(x > 0, x, 1.0)
