"""What one call of a model's ``train_function`` takes in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from telemetry.timing import batch_size_of


class Feed:
    """The batches of one call; None where they cannot be seen.

    Attributes:
        batches: How many.
        items: How many items they have.
        waited: Nanoseconds of waiting for them.
    """

    __slots__ = ("batches", "items", "waited")

    def __init__(
        self, batches: int | None = None, items: int | None = None, waited: int | None = None
    ) -> None:
        self.batches, self.items, self.waited = batches, items, waited

    @classmethod
    def of(cls, batches: list[Any]) -> Feed:
        """A feed of batches that are there."""
        if len(batches) == 1:
            return cls(1, batch_size_of(batches[0]))
        sizes = [batch_size_of(batch) for batch in batches]
        known = [size for size in sizes if size is not None]
        return cls(len(batches), sum(known) if len(known) == len(sizes) else None)


class CountingIterator(Feed):
    """The iterator that a ``train_function`` draws from, which looks at what it gives.

    Example:
        >>> feed = CountingIterator(iter([["a", "b"], ["c"]]))
        >>> len(list(feed)), feed.batches, feed.items
        (2, 2, 3)
    """

    __slots__ = ("_iterator",)

    def __init__(self, iterator: Iterator[Any]) -> None:
        super().__init__(0, 0, 0)
        self._iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        before = time.monotonic_ns()
        batch = next(self._iterator)
        self.waited = (self.waited or 0) + time.monotonic_ns() - before
        self.batches = (self.batches or 0) + 1
        size = batch_size_of(batch)
        self.items = None if size is None or self.items is None else self.items + size
        return batch


class Data:
    """How large the batches are, as far as the arguments of ``fit`` tell.

    Args:
        arguments: Of ``fit``.

    Example:
        >>> import numpy as np
        >>> data = Data({"x": np.zeros((10, 3)), "batch_size": 4})
        >>> data.items(first=1, batches=2, of=3), data.items(first=0, batches=1, of=8)
        (6, None)
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        given = arguments.get("x")
        self._static = batch_size_of(getattr(given, "element_spec", None))
        self._size = arguments.get("batch_size") or 32
        count = batch_size_of(given)
        split = arguments.get("validation_split")
        if split and arguments.get("validation_data") is None and count is not None:
            count = math.floor(count * (1.0 - split))
        self._count = count
        self._batches = None if count is None else -(-count // self._size)

    def items(self, *, first: int, batches: int, of: int | None) -> int | None:
        """The items of some batches of an epoch.

        Args:
            first: The number of the first of them, from 0.
            batches: How many.
            of: How many batches an epoch has, if that is known.
        """
        if self._static is not None:
            return self._static * batches
        if self._count is None or of != self._batches:
            return None  # an epoch is no pass through arrays
        return min((first + batches) * self._size, self._count) - first * self._size
