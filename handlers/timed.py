"""How long a block or a function takes: a context manager that is a decorator too."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Self, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Timed:
    """Tells how many seconds each block or call took, whether it succeeded or failed.

    One can be used in several threads and tasks at once.

    Args:
        tell: Called with the seconds.

    Example:
        >>> told = []
        >>> timed = Timed(told.append)
        >>> with timed:
        ...     pass
        >>> @timed
        ... def double(x):
        ...     return 2 * x
        >>> double(4), len(told)
        (8, 2)
    """

    def __init__(self, tell: Callable[[float], object]) -> None:
        self._tell = tell

    def __enter__(self) -> Self:
        _BEGUN.set((*_BEGUN.get(), (self, time.perf_counter())))
        return self

    def __exit__(self, *_: object) -> None:
        begun = _BEGUN.get()
        # Of blocks within one another, the innermost ends first.
        last = max(place for place, (timed, _) in enumerate(begun) if timed is self)
        _BEGUN.set((*begun[:last], *begun[last + 1 :]))
        self._tell(time.perf_counter() - begun[last][1])

    def __call__(self, function: F) -> F:
        """Measure each call of a function; of a coroutine or a generator, until it has ended."""
        tell = self._tell

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with _one_call(tell):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def timed_coroutine(*args: Any, **kwargs: Any) -> Any:
            with _one_call(tell):
                return await function(*args, **kwargs)

        @functools.wraps(function)
        def timed_generator(*args: Any, **kwargs: Any) -> Any:
            with _one_call(tell):
                return (yield from function(*args, **kwargs))

        if inspect.isasyncgenfunction(function):
            raise TypeError(
                f"An asynchronous generator cannot be timed by a decorator, got {function!r}. "
                "Write 'with' around what it does."
            )
        chosen: Any = timed
        if inspect.iscoroutinefunction(function):
            chosen = timed_coroutine
        elif inspect.isgeneratorfunction(function):
            chosen = timed_generator
        return chosen  # type: ignore[no-any-return]  # it has the signature of what it wraps


_BEGUN: Final[ContextVar[tuple[tuple[Timed, float], ...]]] = ContextVar(
    "trainbus_timed", default=()
)
"""Blocks that have not ended, with their beginnings: of each thread and task its own."""


@contextmanager
def _one_call(tell: Callable[[float], object]) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        tell(time.perf_counter() - began)
