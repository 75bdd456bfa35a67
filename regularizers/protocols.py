"""What the parts of this package ask of each other, and of a framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

from regularizers.trees import Tree

Scalar: TypeAlias = Any
"""A Python number, or a 0-d array or tensor of a supported framework."""

LossFunction: TypeAlias = Callable[[Any, Any], Any]
"""``(data, logprobs) -> scalar`` or ``(scalar, {metric: number})``, or an awaitable of them."""

GradFunction: TypeAlias = Callable[[Any, Any], Tree]
"""``(data, logprobs) -> gradient``, a tree of the same shape as ``logprobs``."""

Weight: TypeAlias = float | Callable[[Any], Scalar]
"""A number, or a function of the step that returns one."""

Gradient: TypeAlias = Sequence[Any]
"""One array for each variable; None where the function does not depend on it."""


class Value(NamedTuple):
    """What a loss function returned: its scalar and its further metrics."""

    scalar: Scalar
    custom: Mapping[str, Scalar]


class Computation(NamedTuple):
    """A loss function with its data bound and its result checked."""

    label: str
    """What to call it in a message."""
    compute: Callable[[Tree], Value]
    """Calls it on these logprobs."""
    grad: Callable[[Tree], Tree] | None
    """The gradient that it brings along, with its data bound."""


class Recording(Protocol):
    """Takes gradients by the same variables, of functions that are each evaluated once."""

    logprobs: Tree
    """What the functions are to be called on."""

    traces: bool
    """Whether a function has to be called by `differentiate`, because the gradient cannot be found
    from a result that is there already."""

    def differentiate(self, function: Computation) -> tuple[Value, Gradient]:
        """Evaluate a function, and take the gradient of its scalar with one backward pass.

        Raises:
            ValueError: The framework cannot differentiate through it.
        """


class Backend(Protocol):
    """What the runner and the penalties need of a framework."""

    name: str
    differentiates: bool
    """Whether it finds gradients itself; else each function has to bring its own."""
    crosses_threads: bool
    """Whether a function may be evaluated in another thread than the caller's."""
    xp: Any
    """A namespace with the operations of the penalties."""

    def owns(self, kind: type) -> bool:
        """Whether values of this type are its tensors."""

    def as_float(self, leaf: Any) -> Any:
        """A leaf as an array of floats of 32 bits or more."""

    def snapshot(self, value: Any) -> Any:
        """The value without its graph, in memory that nobody else writes to. Reads nothing."""

    def promote(self, left: Scalar, right: Scalar) -> tuple[Scalar, Scalar]:
        """Both, with its tensors in dtypes that can be added and multiplied."""

    def add_weighted(self, total: Scalar, weight: Scalar, value: Scalar) -> Scalar:
        """``total + weight * value`` of its tensors, differentiable."""

    def tracing(self) -> bool:
        """Whether this thread is inside a transformation of the framework, compiled or not."""

    def compiling(self, leaves: Iterable[Any]) -> bool:
        """Whether this very call is being compiled, so that there are no numbers to report."""

    def is_abstract(self, value: Any) -> bool:
        """Whether one of its tensors has no number, because it is part of what was compiled."""

    def call_back(self, function: Callable[..., None], leaves: Sequence[Any]) -> None:
        """Have compiled code call a function with the numbers, each time it runs."""

    def carry(self) -> Callable[[], AbstractContextManager[None]]:
        """What this thread has set of the framework, to be set in another one."""

    def check_variables(self, logprobs: Tree, wrt: Tree) -> None:
        """Raise if gradients cannot be taken by ``wrt``, or by ``logprobs`` if that is None.

        Raises:
            ValueError: Nothing can be differentiated by, or ``wrt`` is not possible here.
        """

    def record(self, logprobs: Tree, wrt: Tree) -> AbstractContextManager[Recording]:
        """Take gradients by ``wrt``, or by ``logprobs`` if that is None.

        ``logprobs`` may be a function of ``wrt`` that computes them.
        """

    def accumulate(self, total: Any, weight: Scalar, array: Any, *, owned: bool) -> Any:
        """``total + weight * array``, written to ``total`` where that is owned and can be."""

    def norm(self, gradient: Gradient) -> Scalar:
        """The L2 norm of all of a gradient's arrays together, on their device."""
