"""The history of `AutoClip` as JSON data, one entry per row, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipping.sliding import Anchor
from clipping.state_dict import THRESHOLDS, Column, counts, is_count, is_norm, require


def _is_norms(value: object) -> bool:
    return isinstance(value, list) and all(map(is_norm, value))


def _is_anchor(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != len(Anchor._fields):
        return False
    *counts, below, above = value
    return all(map(is_count, counts)) and is_norm(below) and is_norm(above)


def columns(steps: int) -> Mapping[str, Column]:
    """What is saved for each row after some number of steps."""
    return {
        "thresholds": THRESHOLDS,
        "counts": counts(steps),
        "norms": Column(_is_norms, "lists of finite numbers of at least 0"),
        "anchors": Column(_is_anchor, f"lists of {len(Anchor._fields)} numbers", optional=True),
    }


def dump(
    thresholds: NDArray[Any], ring: NDArray[Any], count: NDArray[Any], anchor: Anchor | None
) -> dict[str, list[Any]]:
    """Describe the norms of each row, the oldest first.

    Args:
        thresholds: Of shape [rows].
        ring: The norms, of shape [rows, size]; the n-th is in slot n % size.
        count: How many norms were ever taken in, of shape [rows].
        anchor: See `clipping.sliding.pack`; needed to continue bit-identically with weights.
    """
    described = {
        "thresholds": [None if math.isinf(t) else t for t in thresholds.tolist()],
        "counts": count.tolist(),
        "norms": [row[_slots(n, len(row))].tolist() for row, n in zip(ring, count, strict=True)],
    }
    if anchor is not None:
        described["anchors"] = [
            list(row) for row in zip(*(a.tolist() for a in anchor), strict=True)
        ]
    return described


def load(
    described: Mapping[str, list[Any]], size: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], Anchor | None]:
    """Rebuild what `dump` described: thresholds, ring, counts and anchor.

    Args:
        described: Of a checked state.
        size: How many norms of each row the new owner remembers.
    """
    norms = described["norms"]
    ring, count = np.zeros((len(norms), size)), np.zeros(len(norms), np.int64)
    fits = True
    for row, (seen, known) in enumerate(zip(described["counts"], norms, strict=True)):
        # A longer window than before has empty slots again, so it counts what it has.
        count[row] = seen if len(known) >= min(seen, size) else len(known)
        slots = _slots(int(count[row]), size)
        ring[row, slots] = known[len(known) - len(slots) :]
        fits = fits and len(known) == min(seen, size)
    thresholds = np.array([math.inf if t is None else t for t in described["thresholds"]], float)
    anchors = described.get("anchors") if fits else None
    if anchors is None:
        return thresholds, ring, count, None
    anchor = Anchor(*(np.array(part) for part in zip(*anchors, strict=True)))
    return thresholds, ring, count, anchor


def verify(described: Mapping[str, list[Any]]) -> None:
    """Raise ValueError for norms that do not go with their counts."""
    for count, known in zip(described["counts"], described["norms"], strict=True):
        matches = len(known) <= count and bool(known) == bool(count)
        require(matches, "norms", known, f"1 to {count} numbers" if count else "empty")


def newest(described: Mapping[str, list[Any]], size: int) -> Mapping[str, list[Any]]:
    """The same with at most ``size`` norms a row; anchors are those of a whole window."""
    if all(len(known) <= size for known in described["norms"]):
        return described
    kept = {name: column for name, column in described.items() if name != "anchors"}
    return kept | {"norms": [known[-size:] for known in described["norms"]]}


def _slots(count: int, size: int) -> NDArray[np.int64]:
    """Where the norms of a ring are, the oldest first."""
    return np.arange(max(count - size, 0), count) % size
