"""The data: 1797 handwritten digits of 8x8 pixels, shipped with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from telemetry.extras import import_extra

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

TEST_SHARE = 0.2
BRIGHTEST = 16.0


class Batch(NamedTuple):
    """Some images, float32 of shape (n, 64) in [0, 1], and their digits, int64 of shape (n,)."""

    images: Images
    labels: Labels


def load_digits(random: np.random.Generator) -> tuple[Batch, Batch]:
    """Shuffle the data and split it into training and test."""
    datasets: Any = import_extra("sklearn.datasets", extra="demo", feature="telemetry demo")
    pixels, labels = datasets.load_digits(return_X_y=True)
    order = random.permutation(len(labels))
    images = (pixels[order] / BRIGHTEST).astype(np.float32)
    labels = labels[order].astype(np.int64)
    cut = int(len(labels) * TEST_SHARE)
    return Batch(images[cut:], labels[cut:]), Batch(images[:cut], labels[:cut])


def batches(data: Batch, size: int, random: np.random.Generator) -> Iterator[Batch]:
    """One epoch of the data in random order; the last batch may be smaller."""
    order = random.permutation(len(data.labels))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield Batch(data.images[chosen], data.labels[chosen])
