"""How long a step took, how much of it was waiting for data, and how many items it took in."""

from __future__ import annotations

import time
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from telemetry.records import EventName

TIMING: Final[EventName] = ("training", "timing")
_DEPTH: Final = 4
_LISTS: Final = (list, tuple)
_PARTS: Final = 8


class Stopwatch:
    """A clock that can be held: it does not count what is between `pause` and `resume`.

    Args:
        clock: Nanoseconds.

    Example:
        >>> ticks = iter([10, 25, 30])
        >>> watch = Stopwatch(clock=lambda: next(ticks))
        >>> watch.pause()
        >>> watch.resume()
        >>> watch.now()
        15

    Attributes:
        now: Reads it.
    """

    __slots__ = ("_clock", "_pauses", "now")

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._pauses = 0
        self.now = clock  # itself, which is the fastest, for a loop that never pauses

    def pause(self) -> None:
        """Hold it. Pauses nest."""
        held_at = self.now()
        self.now = lambda: held_at
        self._pauses += 1

    def resume(self) -> None:
        """Let it go on, unless another pause is around this one."""
        self._pauses -= 1
        if not self._pauses:
            out = self._clock() - self.now()
            self.now = lambda: self._clock() - out


class StepTimer:
    """The times of one optimizer step after another, each of one or several batches.

    The clock is the host's: work that a device still does when a step ends counts in the steps
    that wait for it.

    Args:
        clock: Nanoseconds, or a `Stopwatch` of these.

    Example:
        >>> ticks = iter([0, 3, 10])
        >>> timer = StepTimer(clock=lambda: next(ticks))
        >>> timer.wait()
        >>> timer.work(batch_size=5)
        >>> timer.step()["data_duration"]
        3
    """

    __slots__ = ("_begun", "_has_batch", "_items", "_waited", "_waiting_since", "_watch")

    def __init__(self, clock: Callable[[], int] | Stopwatch = time.monotonic_ns) -> None:
        self._watch = clock if isinstance(clock, Stopwatch) else Stopwatch(clock)
        self._begun: int | None = None
        self._waiting_since: int | None = None
        self._waited = 0
        self._has_batch = False
        self._items: int | None = 0

    def wait(self) -> None:
        """The loop waits for a batch from now on.

        What has passed since the last step, such as an evaluation, belongs to no step.
        """
        self._waiting_since = now = self._watch.now()
        if self._begun is None or not self._has_batch:
            self._begun = now

    def work(self, batch_size: int | None) -> None:
        """A batch is there; None if its size is not known."""
        now = self._watch.now()
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
        self._waiting_since = None
        if self._begun is None:
            self._begun = now
        self._has_batch = True
        items = self._items
        self._items = None if batch_size is None or items is None else items + batch_size

    def leave_out(self, duration: int) -> None:
        """Take nanoseconds out of the step in progress, such as those of an evaluation in it."""
        if self._begun is not None:
            self._begun += duration

    def step(self) -> dict[str, Any]:
        """A step has ended: the measurements of ``training.timing``; the next one begins.

        If the loop waits for a further batch, it has ended when the wait began.
        """
        waiting = self._waiting_since if self._has_batch else None
        ended = self._watch.now() if waiting is None else waiting
        duration = 0 if self._begun is None or ended < self._begun else ended - self._begun
        measured: dict[str, Any] = {"step_duration": duration, "data_duration": self._waited}
        if self._items:
            measured["batch_size"] = self._items
            if duration > 0:
                measured["samples_per_second"] = self._items * 1e9 / duration
        self._begun = self._waiting_since = None
        self._waited = self._items = 0
        self._has_batch = False
        return measured


def batch_size_of(batch: Any) -> int | None:
    """How many items a batch has; None if it does not tell. Reads no values, never raises.

    It is the first dimension of the first array or tensor that has one: the batch itself, or inside
    mappings, tuples and lists. Where there is none, the first list is the items. A list of mappings
    with the same keys is a list of items, too; a list of tensors is not, as a ``DataLoader`` gives
    inputs and labels so. A ``PackedSequence`` has as many as its first batch size says. Of what is
    nested deeply or has many parts, only the first ones are looked at.

    Example:
        >>> import numpy as np
        >>> batch_size_of({"x": np.zeros((8, 3))}), batch_size_of(["one", "two"]), batch_size_of(7)
        (8, 2, None)
    """
    try:
        first = batch[0] if type(batch) in _LISTS and batch else _first_part(batch)
        shape = getattr(first, "shape", None)
        if shape:  # the usual batch, in half the time
            return int(shape[0])
        size = _first(batch, _rows, _DEPTH)
        return _first(batch, _items, _DEPTH) if size is None else size
    except Exception:
        return None  # a batch can be anything


def _first_part(batch: Any) -> Any:
    kind = type(batch)
    if kind is dict:
        return next(iter(batch.values()), None)
    if UserDict in kind.__mro__:  # as of transformers' tokenizers; isinstance() takes a microsecond
        return next(iter(batch.data.values()), None)
    return batch


def _first(value: Any, measure: Callable[[Any], int | None], depth: int) -> int | None:
    size = measure(value)
    if size is not None or depth == 0:
        return size
    if isinstance(value, tuple | list):
        parts: Iterable[Any] = value
    elif isinstance(value, Mapping):
        parts = value.values()
    else:
        return None
    for part in islice(parts, _PARTS):
        size = _first(part, measure, depth - 1)
        if size is not None:
            return size
    return None


def _rows(value: Any) -> int | None:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if isinstance(value, list) and _are_items(value):
        return len(value)
    if isinstance(value, tuple) and hasattr(value, "batch_sizes"):
        return int(value.batch_sizes[0])  # torch's PackedSequence, which has it on the host
    return None


def _are_items(parts: list[Any]) -> bool:
    """Whether they are mappings of one kind, and not such of inputs and of targets."""
    first = parts[0] if parts else None
    return isinstance(first, Mapping) and all(
        isinstance(part, Mapping) and part.keys() == first.keys() for part in parts[:_PARTS]
    )


def _items(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None
