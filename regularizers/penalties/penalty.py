"""A penalty: a function with its gradient."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, SupportsIndex

from regularizers.protocols import Scalar
from regularizers.trees import Tree

P = ParamSpec("P")


class Penalty(Generic[P]):
    """A function ``(data, logprobs, *, ...) -> scalar`` that knows its gradient.

    Args:
        value: The function.
        grad: Its gradient by ``logprobs``, with the same arguments.

    Example:
        >>> from regularizers import penalties
        >>> float(penalties.l2(None, [3.0, 4.0]))
        25.0
        >>> [float(g) for g in penalties.l2.grad(None, [3.0, 4.0])]
        [6.0, 8.0]
    """

    def __init__(self, value: Callable[P, Scalar], grad: Callable[P, Tree]) -> None:
        self._value = value
        self._grad = grad
        update_wrapper(self, value)
        with suppress(ValueError):  # some builtins do not tell it
            # Of the object itself it would be that of __call__, which takes any options.
            self.__signature__ = inspect.signature(value)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Scalar:
        """The value."""
        return self._value(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Penalty {getattr(self._value, '__name__', self._value)}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # Where a decorated function is looked up, its penalty is found, which pickle refuses.
        name = getattr(self, "__qualname__", "")
        found = getattr(sys.modules.get(self.__module__), name, None)
        return name if found is self else super().__reduce_ex__(protocol)

    def grad(self, *args: P.args, **kwargs: P.kwargs) -> Tree:
        """The gradient of the value by ``logprobs``, a tree of the same shape."""
        return self._grad(*args, **kwargs)


def with_grad(grad: Callable[P, Tree]) -> Callable[[Callable[P, Scalar]], Penalty[P]]:
    """Make a `Penalty` of the decorated function."""
    return lambda value: Penalty(value, grad)
