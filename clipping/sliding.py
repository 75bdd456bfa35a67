"""The last norms of each group on the host, with statistics that are not computed anew each step.

What is computed is what `clipping.window` computes. There a step sorts all norms; here it only
looks at what comes in and what drops out. A few consecutive order statistics around the quantile
of each group, its neighbourhood, are kept sorted. Norms outside it are merely counted, and only
where the quantile has left its neighbourhood are a group's norms sorted again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from clipping import spread

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

Found: TypeAlias = tuple[NDArray[np.int64 | np.float64], ...]

WIDTH: Final = 80
CHUNK: Final = 64  # rows sorted at once: what is computed of them stays in the cache


class Anchor(NamedTuple):
    """Where the neighbourhood of each group is; each of shape [groups].

    Attributes:
        before: How many norms are smaller than its first.
        length: How many norms are in it.
        epoch: How many norms there had been when it last changed.
        below: The weight of the smaller norms.
        above: The weight of the larger norms.
    """

    before: Ints
    length: Ints
    epoch: Ints
    below: Floats
    above: Floats


class Near(NamedTuple):
    """The neighbourhood of each group, ordered by norm, and among equal norms by birth.

    Attributes:
        norms: Of shape [groups, width + 1]; infinity behind the last.
        births: How many norms the group had taken in before this one; -1 behind the last.
        under: The weight, at the epoch, of those before this one.
        over: The weight, at the epoch, of those behind this one.
        key: ``(1 - q) * under - q * over``, which rises with the rank.
        low: The index of the norm at or below the quantile, of shape [groups].
    """

    norms: Floats
    births: Ints
    under: Floats
    over: Floats
    key: Floats
    low: Ints


class Sliding(NamedTuple):
    """The last norms of each group.

    Attributes:
        ring: The norms, of shape [groups, size]; the n-th is in slot n % size.
        count: How many norms were ever taken in, of shape [groups].
        anchor: Where the neighbourhoods are.
        near: The neighbourhoods.
        mean: Of each block of slots, of shape [groups, blocks], or [groups, 0] without them.
        square: The sum of the squared deviations from it.
    """

    ring: Floats
    count: Ints  # type: ignore[assignment] # hides tuple.count, which nobody calls here
    anchor: Anchor
    near: Near
    mean: Floats
    square: Floats


def empty(groups: int, size: int, *, with_std: bool = False) -> Sliding:
    """A history without norms; ``with_std`` says whether `sample_std` is wanted."""
    count, before, length, epoch, low = np.zeros((5, groups), np.int64)
    shape = (groups, min(WIDTH, size) + 1)
    under, over, key = np.zeros((3, *shape))
    near = Near(np.full(shape, np.inf), np.full(shape, -1), under, over, key, low)
    mean, square = np.zeros((2, groups, -(-size // spread.block_length(size)) if with_std else 0))
    anchor = Anchor(before, length, epoch, *np.zeros((2, groups)))
    return Sliding(np.zeros((groups, size)), count, anchor, near, mean, square)


def push(history: Sliding, norms: Floats, observed: Bools, q: float, decay: float) -> Sliding:
    """Take in one norm of each group, which drops the oldest of a full window.

    An interruption may leave some arrays written to and others not. ``history.ring`` and
    ``history.count`` are sound even then: `unpack` them without an anchor, and push again.

    Args:
        history: The norms so far. It is written to and must not be used any more.
        norms: Finite floats of shape [groups].
        observed: Booleans of shape [groups]: where False nothing is taken in.
        q: In [0, 1], the quantile that is wanted; the same for the whole history.
        decay: In (0, 1]; a norm weighs ``decay ** age``. The same for the whole history.
    """
    ring, size, rows = history.ring, history.ring.shape[1], np.arange(history.count.size)
    weights = _weights(size, decay)
    slot = history.count % size
    oldest = ring[rows, slot]
    ring[rows, slot] = np.where(observed, norms, oldest)
    anchor, leaves, enters = _counted(history, norms, oldest, observed, decay)
    after = history._replace(count=history.count + observed, anchor=anchor)
    (changed,) = (leaves | enters).nonzero()
    if changed.size:
        _edit(after, changed, leaves[changed], enters[changed], norms[changed], weights)
        if decay < 1:
            _weigh(after, changed, q, weights)
    low, lost = _locate(after, slice(None), q, decay)
    after = after._replace(near=after.near._replace(low=low))
    if decay < 1:  # sums of weights gather rounding errors: begin anew once in a while
        lost |= observed & (slot == rows % size) & (anchor.length < history.count)
    if lost.any():
        _rescan(after, lost.nonzero()[0], q, decay)
    if after.mean.shape[1]:
        block = slot // spread.block_length(size)
        after.mean[rows, block], after.square[rows, block] = spread.moments(
            ring, after.count, block
        )
    return after


def quantile(history: Sliding, q: float, decay: float) -> Floats:
    """The q-quantile of each group's norms, as `clipping.window.quantile` defines it.

    Args:
        history: The norms.
        q: What they were pushed with.
        decay: What they were pushed with.

    Returns:
        Floats of shape [groups]; infinity where there is no norm.
    """
    anchor, near, count = history.anchor, history.near, history.count
    size, rows = history.ring.shape[1], np.arange(count.size)
    low = (rows, near.low)
    high = (rows, np.minimum(near.low + 1, np.maximum(anchor.length - 1, 0)))
    if decay == 1:
        share = q * (np.minimum(count, size) - 1) - (anchor.before + near.low)
    else:
        scale, ranks = _weights(size, decay)[count - anchor.epoch], []
        for at in (low, high):
            under = anchor.below + scale * near.under[at]
            others = under + (anchor.above + scale * near.over[at])
            ranks.append(under / np.where(others > 0, others, 1.0))
        start, end = ranks
        share = (q - start) / np.where(end > start, end - start, 1.0)
    known = count > 0
    floor, ceiling = (np.where(known, near.norms[at], 0.0) for at in (low, high))
    value = floor + np.minimum(np.maximum(share, 0.0), 1.0) * (ceiling - floor)
    return np.where(known, value, np.inf)


def sample_std(history: Sliding) -> Floats:
    """The sample standard deviation (of n - 1 degrees of freedom) of each group's norms.

    Args:
        history: One that was made with ``with_std``.

    Returns:
        Floats of shape [groups]; infinity where there are less than two norms.
    """
    held = np.minimum(history.count, history.ring.shape[1])
    return spread.sample_std(history.mean, history.square, held, history.ring.shape[1])


def pack(history: Sliding) -> tuple[Floats, Ints, Anchor]:
    """Copies of what `unpack` needs to continue bit-identically: ring, count and anchor."""
    before, length, epoch, below, above = history.anchor
    anchor = Anchor(before.copy(), length.copy(), epoch.copy(), below.copy(), above.copy())
    return history.ring.copy(), history.count.copy(), anchor


def unpack(
    ring: Floats,
    count: Ints,
    anchor: Anchor | None,
    q: float,
    decay: float,
    *,
    with_std: bool = False,
) -> Sliding:
    """A history from what `pack` gave, which is copied.

    Without an anchor, and where it does not fit, the neighbourhood is found anew. The statistics
    are then the same but for rounding.
    """
    groups, size = ring.shape
    history = empty(groups, size, with_std=with_std)
    history.ring[:], history.count[:] = ring, count
    lost = history.count > 0
    if anchor is not None:
        room = np.minimum(np.minimum(count, size) - anchor.before, min(WIDTH, size))
        fits = (anchor.before >= 0) & (anchor.length > 0) & (anchor.length <= room)
        fits &= (anchor.epoch <= count) & (count - anchor.epoch <= size)
        fits[fits] = _weights_fit(history, fits.nonzero()[0], anchor, _weights(size, decay))
        lost[fits] = _rescan(history, fits.nonzero()[0], q, decay, anchor)
    _rescan(history, lost.nonzero()[0], q, decay)
    for block in range(history.mean.shape[1]):
        moments = spread.moments(history.ring, history.count, np.full(groups, block))
        history.mean[:, block], history.square[:, block] = moments
    return history


def _counted(
    history: Sliding, norms: Floats, oldest: Floats, observed: Bools, decay: float
) -> tuple[Anchor, Bools, Bools]:
    """Count what is outside of the neighbourhoods, and say what leaves and enters them."""
    (before, length, epoch, below, above), near, count = history[2], history.near, history.count
    size = history.ring.shape[1]
    first, last = near.norms[:, 0], near.norms[np.arange(count.size), length - 1]
    # The oldest of equal norms comes first among them, the newest last.
    dropped = observed & (count >= size)
    under = dropped & (oldest <= first) & (near.births[:, 0] != count - size)
    over = dropped & (oldest > last)
    before = before - under
    larger = np.minimum(count, size) - before - under - length - over
    lower = observed & (norms < first) & (before > 0)
    upper = observed & (norms >= last) & (larger > 0)
    fade, faded = np.where(observed, decay, 1.0), _weights(size, decay)[size]
    below = np.where(before > 0, below * fade - under * faded, 0.0) + lower
    above = np.where(larger > 0, above * fade - over * faded, 0.0) + upper
    anchor = Anchor(before + lower, length.copy(), epoch.copy(), below, above)
    return anchor, dropped & ~under & ~over, observed & ~lower & ~upper


def _edit(
    history: Sliding, rows: Ints, leaves: Bools, enters: Bools, new: Floats, weights: Floats
) -> None:
    """Take the oldest norm out of some neighbourhoods and put the newest into some."""
    anchor, near, newest = history.anchor, history.near, history.count[rows] - 1
    norms, births = near.norms[rows], near.births[rows]
    width, size = norms.shape[1] - 1, history.ring.shape[1]
    nowhere = width + 1
    hole = np.where(leaves, (births == (newest - size)[:, None]).argmax(axis=1), nowhere)
    place = np.add.reduce(norms <= new[:, None], axis=1, dtype=np.int64)
    place = np.where(enters, place - (hole < place), nowhere)
    length = anchor.length[rows] - leaves + enters
    full = length > width  # drop what is farther from the quantile, at the front or at the end
    front = full & (near.low[rows] > width // 2)
    column = np.arange(width) + front[:, None]
    here = column == place[:, None]
    source = column - (column > place[:, None])
    source += source >= hole[:, None]
    source += np.arange(0, norms.size, width + 1)[:, None]
    near.norms[rows, :width] = np.where(here, new[:, None], norms.take(source))
    near.births[rows, :width] = np.where(here, newest[:, None], births.take(source))
    if full.any():
        end = np.where(front, 0, width - (place < width))
        shed = np.where(
            place == np.where(front, 0, width), newest, births[np.arange(rows.size), end]
        )
        weight = weights.take(newest - shed, mode="clip")
        anchor.before[rows] += front
        anchor.below[rows] += front * weight
        anchor.above[rows] += (full & ~front) * weight
    anchor.length[rows] = np.minimum(length, width)
    anchor.epoch[rows] = history.count[rows]


def _weigh(history: Sliding, rows: Ints, q: float, weights: Floats) -> None:
    """Add up the weights in some neighbourhoods as of their epoch."""
    near = history.near
    births = near.births[rows]
    age = (history.anchor.epoch[rows] - 1)[:, None] - births
    under, over = _sums(np.where(births < 0, 0.0, weights.take(age, mode="clip")))
    near.under[rows], near.over[rows], near.key[rows] = under, over, (1 - q) * under - q * over


def _sums(weight: Floats) -> tuple[Floats, Floats]:
    """The weight before and behind each norm of a row, without differences of sums."""
    under, over = np.zeros_like(weight), np.zeros_like(weight)
    np.cumsum(weight[:, :-1], axis=1, out=under[:, 1:])
    np.cumsum(weight[:, :0:-1], axis=1, out=over[:, -2::-1])
    return under, over


def _locate(history: Sliding, rows: Ints | slice, q: float, decay: float) -> tuple[Ints, Bools]:
    """The index of the norm at or below the quantile, and where that is not known."""
    before, length, epoch, below, above = (x[rows] for x in history.anchor)
    count, size = history.count[rows], history.ring.shape[1]
    held = np.minimum(count, size)
    if decay == 1:
        low = (q * np.maximum(held - 1, 0)).astype(np.int64) - before
    else:
        bound = q * above - (1 - q) * below
        scale = _weights(size, decay)[count - epoch]
        with np.errstate(all="ignore"):  # weights may be so old that they are 0
            passed = history.near.key[rows] <= (bound / scale)[:, None]
        passed[:, -1] = False
        low = np.minimum(passed.argmin(axis=1), length) - 1
    lost = (count > 0) & ((low < 0) | (low >= length - (held > before + length)))
    return np.minimum(np.maximum(low, 0), history.near.norms.shape[1] - 2), lost


def _rescan(
    history: Sliding, rows: Ints, q: float, decay: float, kept: Anchor | None = None
) -> Bools:
    """Sort some groups' norms for their neighbourhood; where the quantile is not in it."""
    near, width = history.near, history.near.norms.shape[1] - 1
    lost, column = np.zeros(rows.size, np.bool_), np.arange(width)
    weights = _weights(history.ring.shape[1], decay)
    for begin in range(0, rows.size, CHUNK):
        some = rows[begin : begin + CHUNK]
        norms, age = _sorted(history.ring[some], history.count[some])
        if kept is None:
            found = _around(age, history.count[some], width, q, weights)
        else:
            found = tuple(x[some] for x in kept)
        for whole, part in zip(history.anchor, found, strict=True):
            whole[some] = part
        inside = column < history.anchor.length[some, None]
        index = np.where(inside, history.anchor.before[some, None] + column, 0)
        births = (history.count[some] - 1)[:, None] - np.take_along_axis(age, index, 1)
        near.norms[some, :width] = np.where(inside, np.take_along_axis(norms, index, 1), np.inf)
        near.births[some, :width] = np.where(inside, births, -1)
        if decay < 1:
            _weigh(history, some, q, weights)
        near.low[some], lost[begin : begin + CHUNK] = _locate(history, some, q, decay)
    return lost


def _weights_fit(history: Sliding, rows: Ints, anchor: Anchor, weights: Floats) -> Bools:
    """Whether an anchor's weights are those of the norms that it says are outside."""
    count, fits = history.count[rows], np.zeros(rows.size, np.bool_)
    for begin in range(0, rows.size, CHUNK):
        some = slice(begin, begin + CHUNK)
        _, age = _sorted(history.ring[rows[some]], count[some])
        under, over = _sums(np.where(age < count[some, None], weights[age], 0.0))
        line = np.arange(len(age))
        before, length, _, below, above = (part[rows[some]] for part in anchor)
        fits[some] = np.isclose(under[line, before], below, rtol=1e-6, atol=1e-9)
        fits[some] &= np.isclose(over[line, before + length - 1], above, rtol=1e-6, atol=1e-9)
    return fits


def _sorted(ring: Floats, count: Ints) -> tuple[Floats, Ints]:
    """Norms and ages, ordered by norm, and among equal norms from the oldest to the newest."""
    size = ring.shape[1]
    age = sliding_window_view(_cycle(size), size)[-count % size]
    norms = np.where(age < count[:, None], ring, np.inf)
    order = norms.argsort(axis=1)
    ascending = np.take_along_axis(norms, order, 1)
    # Norms are seldom equal, and to heed their age takes several times as long.
    tied = ((ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] < np.inf)).any(axis=1)
    if tied.any():
        order[tied] = np.lexsort((-age[tied], norms[tied]), axis=1)
    return ascending, np.take_along_axis(age, order, 1)


def _around(age: Ints, count: Ints, width: int, q: float, weights: Floats) -> Found:
    """The anchor that has the quantile in the middle, from the ages in order of the norms."""
    size, rows = age.shape[1], np.arange(count.size)
    held = np.minimum(count, size)
    under, over = _sums(np.where(age < count[:, None], weights[age], 0.0))
    passed = (1 - q) * under <= q * over
    low = np.minimum(np.where(passed.all(axis=1), size, passed.argmin(axis=1)), held) - 1
    before = np.minimum(np.maximum(low - width // 2, 0), np.maximum(held - width, 0))
    length = np.minimum(held, width)
    return before, length, count, under[rows, before], over[rows, before + length - 1]


@lru_cache(maxsize=16)
def _weights(size: int, decay: float) -> Floats:
    """The weight of each age."""
    return np.asarray(decay ** np.arange(size + 1.0))


@lru_cache(maxsize=16)
def _cycle(size: int) -> Ints:
    """The ages of slots, of which a history sees a window."""
    return np.arange(2 * size)[::-1] % size
