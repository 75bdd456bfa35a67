"""What a unit of a parameter is: the weights into one output, after Brock et al. (2021).

Biases and scales are a single unit, and so is a parameter without elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def last_axis(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes within a unit where the outputs are on the last axis.

    Dense kernels [inputs, outputs], multi-head ones [inputs, heads, outputs] and convolution
    kernels [..., inputs, outputs] of jax and tensorflow; equal to ``optax.adaptive_grad_clip``
    where that is defined, which is up to four axes.

    >>> last_axis((3, 3, 16, 32)), last_axis((64, 10)), last_axis((10,))
    ((0, 1, 2), (0,), (0,))
    """
    if sum(length != 1 for length in shape) <= 1 or 0 in shape:
        return tuple(range(len(shape)))
    return (0,) if len(shape) <= 3 else tuple(range(len(shape) - 1))  # noqa: PLR2004 -- as optax


def first_axis(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes within a unit where the outputs are on the first axis, as in torch.

    Equal to ``timm.utils.agc``.

    >>> first_axis((32, 16, 3, 3)), first_axis((10, 64)), first_axis((10,))
    ((1, 2, 3), (1,), (0,))
    """
    return tuple(range(len(shape) > 1 and 0 not in shape, len(shape)))


def count(shape: Sequence[int], within: Sequence[int]) -> int:
    """How many units a parameter has, given the axes within one."""
    return math.prod(length for axis, length in enumerate(shape) if axis not in within)
