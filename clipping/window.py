"""The last norms of each group, and the statistics of them.

Everything works on all groups at once, decides by masks and never looks at a value, so that it
can be compiled. A history of ``size`` norms takes ``size`` floats a group.
"""

from __future__ import annotations

import math

from clipping.records import Array, Ops, Window


def empty(ops: Ops, groups: int, size: int) -> Window:
    """A window of each group without norms in it."""
    return Window(ops.full((groups, size), 0.0), ops.zero_counts((groups,)))


def push(ops: Ops, window: Window, norms: Array, observed: Array) -> Window:
    """Take in one norm of each group, which drops the oldest of a full window.

    Args:
        ops: The array operations.
        window: The norms so far; it is not written to.
        norms: Floats of shape [groups].
        observed: Booleans of shape [groups]: where False nothing is taken in.
    """
    size = window.ring.shape[-1]
    here = ops.slots(size) == (window.count % size)[:, None]
    ring = ops.where(here & observed[:, None], norms[:, None], window.ring)
    return Window(ring, ops.where(observed, window.count + 1, window.count))


def quantile(ops: Ops, window: Window, q: float, decay: float = 1.0) -> Array:
    """The q-quantile of each group's norms, weighted by ``decay ** age``.

    The rank of a norm is the share of the other norms' weight that lies below it, so the smallest
    has rank 0 and the largest 1; between ranks the norms are interpolated linearly. With equal
    weights that is the definition 7 of Hyndman & Fan (1996), "Sample Quantiles in Statistical
    Packages", which is NumPy's default. Of equal norms the oldest ranks lowest.

    Args:
        ops: The array operations.
        window: The norms.
        q: In [0, 1].
        decay: In (0, 1]; the newest norm has age 0.

    Returns:
        Floats of shape [groups]; infinity where there is no norm.
    """
    # The oldest first, so that of equal norms it is the smallest in a stable sort.
    slots = ops.slots(window.ring.shape[-1])
    index = (window.count[:, None] + slots) % window.ring.shape[-1]
    ring, filled = ops.take(window.ring, index), index < window.count[:, None]
    order = ops.argsort(ops.where(filled, ring, math.inf))
    norms = ops.take(ring, order)
    age = ops.real(window.ring.shape[-1] - 1 - slots)
    weights = ops.where(filled, ops.exp(age * math.log(decay)), 0.0)
    rank = _rank(ops, ops.take(weights, order))
    size = ops.sum(filled)
    passed = ops.sum((rank <= q) & (slots < size))
    low = ops.where(passed > 0, passed - 1, passed)
    high = ops.where(passed < size, passed, low)
    value = _interpolate(ops, q, norms, rank, low, high)
    return ops.where(window.count > 0, value[:, 0], math.inf)


def sample_std(ops: Ops, window: Window) -> Array:
    """The sample standard deviation (of n - 1 degrees of freedom) of each group's norms.

    Returns:
        Floats of shape [groups]; infinity where there are less than two norms.
    """
    filled = _filled(ops, window)
    size = ops.real(ops.sum(filled))
    mean = ops.sum(ops.where(filled, window.ring, 0.0)) / ops.where(size > 0, size, 1.0)
    deviation = ops.where(filled, window.ring - mean, 0.0)
    variance = ops.sum(deviation * deviation) / ops.where(size > 1, size - 1, 1.0)
    return ops.where(window.count > 1, ops.sqrt(variance)[:, 0], math.inf)


def _filled(ops: Ops, window: Window) -> Array:
    return ops.slots(window.ring.shape[-1]) < window.count[:, None]


def _rank(ops: Ops, weights: Array) -> Array:
    below = ops.sum_before(weights)
    upto = below + weights
    others = below + (upto[:, -1:] - upto)
    return below / ops.where(others > 0, others, 1.0)


def _interpolate(ops: Ops, q: float, norms: Array, rank: Array, low: Array, high: Array) -> Array:
    start, end = ops.take(rank, low), ops.take(rank, high)
    between = (start < q) & (q < end)
    share = ops.where(
        between, (q - start) / ops.where(between, end - start, 1.0), ops.real(end <= q)
    )
    floor = ops.take(norms, low)
    return floor + share * (ops.take(norms, high) - floor)
