"""What a framework supplies: its gradients, and how to hook its optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.records import Decision, Measured, Ops


class Gradients(Protocol):
    """The gradients of one step."""

    @property
    def backend(self) -> str:
        """The name of the framework."""
        ...

    @property
    def ops(self) -> Ops:
        """Operations where the norms are."""
        ...

    @property
    def groups(self) -> Groups:
        """What belongs together."""
        ...

    def measure(self, *, weights: bool) -> Measured:
        """The norms of every row, those of the weights as well if they are asked for."""
        ...

    def present(self) -> Any:
        """Which rows have a gradient, a NumPy array of booleans; None if all."""
        ...

    def rescale(self, decision: Decision) -> None:
        """Scale or zero the gradients as it was decided."""
        ...


class Backend(Protocol):
    """What a module of ``clipping.backends`` provides."""

    def recognises(self, parameter: object) -> bool:
        """Whether a model with such a parameter is this framework's."""
        ...

    def gradients_of(self, model: Any, clipper: Clipper) -> Gradients:
        """The gradients that a model holds, in the groups that a clipper wants.

        Raises:
            TypeError: A gradient or parameter is of a kind that cannot be clipped.
            ValueError: There is no gradient, they are on several devices, or the clipper's scope
                does not fit the model.
        """
        ...

    def check_optimizer(self, optimizer: object) -> None:
        """Raise TypeError for what is no optimizer of this framework."""
        ...

    def before_step(self, optimizer: Any, act: Callable[[], None]) -> Callable[[], None]:
        """Have ``act`` called before every step of an optimizer; returns what undoes that.

        Raises:
            TypeError: The optimizer cannot be hooked.
        """
        ...
