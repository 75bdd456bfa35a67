"""Which optimizer step a Keras ``fit`` is in, counted on the host."""

from __future__ import annotations

from typing import Any


def stepping(optimizer: Any) -> Any:
    """The optimizer that steps, inside a ``LossScaleOptimizer`` too."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class Steps:
    """Optimizer steps, of one or several batches each.

    Args:
        optimizer: That of the model; None for a model without one, whose batches are its steps.

    Attributes:
        batches: How many batches the optimizer has taken in.
        each: How many batches make a step.
        may_skip: Whether the device decides if a batch counts: a ``LossScaleOptimizer`` leaves out
            those that overflow.
        follows: Whether the optimizer's own count goes with the batches. If it does not, as when a
            ``train_step`` uses another optimizer, or this one every other batch, each batch counts.
        uses: Whether the optimizer is used at all, as far as is known.

    Example:
        >>> steps = Steps(None)
        >>> steps.batches = 7
        >>> steps.made, steps.coming(2)
        (7, 9)
    """

    __slots__ = ("_first", "batches", "each", "follows", "may_skip", "uses")

    def __init__(self, optimizer: Any) -> None:
        owner = stepping(optimizer)
        self.batches = 0
        self.each: int = getattr(owner, "gradient_accumulation_steps", None) or 1
        self.may_skip = owner is not optimizer
        self.follows = self.uses = True
        self._first: int | None = None

    @property
    def made(self) -> int:
        """How many steps were made."""
        return self.batches // self.each

    def begin(self, seen: int) -> None:
        """An epoch begins, and the optimizer's own count is ``seen``.

        The count only starts there: it never goes back.
        """
        if self._first is None:
            self._first = self.batches = seen
            return
        self.uses = seen != self._first
        if self.may_skip and self.follows:
            self.batches = seen
        elif seen != self.batches:
            self.follows = False

    def take(self, batches: int, *, seen: int | None, or_fewer: bool = False) -> None:
        """Count batches that were taken in, after which the optimizer's own count is ``seen``.

        Args:
            batches: How many.
            seen: None where it is out of sight.
            or_fewer: Whether they may have been fewer.
        """
        moved = 0 if seen is None else seen - self.batches
        self.uses = seen is None or moved != 0
        fits = moved <= batches if self.may_skip else moved == batches
        if seen is not None and (fits or (or_fewer and 0 < moved < batches)):
            self.batches = seen
        else:
            self.follows = False
            self.batches += batches

    def coming(self, batches: int) -> int:
        """The number of the step that the last of the next batches belongs to."""
        return -(-(self.batches + batches) // self.each)
