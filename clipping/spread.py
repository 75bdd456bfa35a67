"""The standard deviation of each group's last norms on the host, from moments of blocks of them.

The ring of norms is cut into blocks. What comes in changes one of them, whose moments are computed
anew from its norms, so that nothing adds up from step to step and a spike that has left the
window leaves no trace.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


def block_length(size: int) -> int:
    """How many slots of a ring make a block."""
    return max(1, math.isqrt(size))


def sample_std(mean: Floats, square: Floats, held: Ints, size: int) -> Floats:
    """The sample standard deviation (of n - 1 degrees of freedom) of each group's norms.

    The moments of the blocks are combined as in Chan, Golub & LeVeque (1979), "Updating Formulae
    and a Pairwise Algorithm for Computing Sample Variances", for all blocks at once.

    Args:
        mean: Of each block, of shape [groups, blocks].
        square: The sum of the squared deviations from it.
        held: How many norms there are, of shape [groups].
        size: How many there can be.

    Returns:
        Floats of shape [groups]; infinity where there are less than two norms.
    """
    blocks, length = mean.shape[1], block_length(size)
    alike = held[:1] if (held == held[:1]).all() else held
    share = np.minimum(
        np.maximum(alike[:, None] - np.arange(0, blocks * length, length), 0), length
    ).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.einsum("gb,gb->g", share, mean) / np.maximum(held, 1)
        deviation = mean - centre[:, None]
        deviation *= deviation
        total = np.einsum("gb,gb->g", share, deviation) + np.einsum("gb->g", square)
    known = (held > 1) & (total < np.inf)
    return np.where(known, np.sqrt(np.where(known, total, 0.0) / np.maximum(held - 1, 1)), np.inf)


def moments(ring: Floats, count: Ints, block: Ints) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations of the norms in one block of each group's slots."""
    (groups, size), length = ring.shape, block_length(ring.shape[1])
    start = block * length
    held = np.minimum(np.maximum(np.minimum(count, size) - start, 0), length)
    if (start == start[:1]).all():
        norms = np.zeros((groups, length))
        part = ring[:, start[0] : start[0] + length]
        norms[:, : part.shape[1]] = part
    else:
        first = np.arange(0, ring.size, size) + start
        norms = ring.take(first[:, None] + np.arange(length), mode="clip")
    vacant = np.arange(length) >= held[:, None] if (held < length).any() else None
    if vacant is not None:
        norms[vacant] = 0.0
    with np.errstate(over="ignore"):
        mean = np.einsum("gs->g", norms) / np.maximum(held, 1)
        norms -= mean[:, None]
        if vacant is not None:
            norms[vacant] = 0.0
        return mean, np.einsum("gs,gs->g", norms, norms)
