"""The losses of one optimizer step after another, unread."""

from __future__ import annotations

import sys
from typing import Any, Final

_CHUNK: Final = 64
_SINGLE: Final = 4
"""Bytes of a number of single precision."""


class StepLosses:
    """Sums of losses that stay on their device.

    Those of an epoch are added up many at a time: an operation on scalars costs more than the
    numbers are worth.

    Example:
        >>> losses = StepLosses()
        >>> losses.add(1.0)
        >>> losses.add(2.0)
        >>> losses.step(), losses.epoch()
        (3.0, 3.0)
        >>> losses.step(), losses.epoch()
        (None, None)
    """

    __slots__ = ("_chunk", "_steps", "_sum")

    def __init__(self) -> None:
        self._sum: Any = None
        self._chunk: list[Any] = []
        self._steps = 0

    def add(self, loss: Any) -> None:
        """The loss of a batch, as its share of the step's."""
        kept = lasting(loss)
        self._sum = kept if self._sum is None else self._sum + kept

    def step(self) -> Any:
        """The loss of the step that has ended; None if none was added."""
        loss, self._sum = self._sum, None
        if loss is not None:
            self._steps += 1
            self._chunk.append(loss)
            if len(self._chunk) == _CHUNK:
                self._chunk = [_total(self._chunk)]
        return loss

    def epoch(self) -> Any:
        """The mean loss of the epoch's steps; None if there is none. Another epoch begins."""
        mean = _total(self._chunk) / self._steps if self._chunk else None
        self._chunk, self._steps = [], 0
        return mean


def lasting(scalar: Any) -> Any:
    """A scalar to hand over, of single precision at least, that nobody writes to again.

    What is on an accelerator is copied: a compiled model may write to its loss in the next step.

    Example:
        >>> lasting(2.5)
        2.5
    """
    if type(scalar) is float or not hasattr(scalar, "detach"):
        return scalar
    if scalar.element_size() < _SINGLE:
        return scalar.detach().float()
    if not scalar.is_cpu:
        return scalar.detach().clone()
    return scalar.detach() if scalar.requires_grad else scalar


def _total(losses: list[Any]) -> Any:
    if hasattr(losses[0], "detach"):
        return sys.modules["torch"].stack(losses).sum()
    return sum(losses)
