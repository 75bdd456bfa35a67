"""A span around each call of a function of any kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from telemetry.ambient import restore
from telemetry.span_context import CURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemetry.spans import Span


def decorate(function: Any, new_span: Callable[[], Span]) -> Any:
    """Wrap ``function`` so that each call is a span of its own.

    Raises:
        TypeError: It is no function.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(decorate(function.__func__, new_span))
    if not callable(function) or inspect.isclass(function):
        raise TypeError(
            f"A span can decorate functions, coroutine functions and generator functions, "
            f"got {function!r} ({type(function).__name__})."
        )
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 -- of an object that is called
    ):
        wrapper = _coroutine(function, new_span)
    elif inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, new_span)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, new_span)
    else:
        wrapper = _function(function, new_span)
    return functools.wraps(function)(wrapper)


def _function(function: Callable[..., Any], new_span: Callable[[], Span]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with new_span():
            return function(*args, **kwargs)

    return call


def _coroutine(function: Callable[..., Any], new_span: Callable[[], Span]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with new_span():
            return await function(*args, **kwargs)

    return call


@contextmanager
def _current(span: Span) -> Iterator[None]:
    # Only while the generator itself runs: its consumer is not inside the span.
    if span.context is None:
        yield
        return
    token = CURRENT.set(span.context)
    try:
        yield
    finally:
        restore(CURRENT, token)


def _generator(function: Callable[..., Any], new_span: Callable[[], Span]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        span = new_span()
        span.begin()
        resume, value = generator.send, None
        while True:
            try:
                with _current(span):
                    item = resume(value)
            except StopIteration as end:
                span.stop()
                return end.value
            except BaseException as error:
                span.exception(error)
                raise
            try:
                value = yield item
                resume = generator.send
            except GeneratorExit:
                with _ending(span), _current(span):
                    generator.close()
                raise
            except BaseException as thrown:
                resume, value = generator.throw, thrown

    return call


def _async_generator(
    function: Callable[..., Any], new_span: Callable[[], Span]
) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        span = new_span()
        span.begin()
        resume, value = generator.asend, None
        while True:
            try:
                with _current(span):
                    item = await resume(value)
            except StopAsyncIteration:
                span.stop()
                return
            except BaseException as error:
                span.exception(error)
                raise
            try:
                value = yield item
                resume = generator.asend
            except GeneratorExit:
                with _ending(span), _current(span):
                    await generator.aclose()
                raise
            except BaseException as thrown:
                resume, value = generator.athrow, thrown

    return call


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        span.exception(error)
        raise
    span.stop()
