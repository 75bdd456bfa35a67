"""Waiting, on the running event loop, for a coroutine, a future or a thread."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


@dataclass(slots=True)
class Done(Generic[T]):
    """What came of something: a value, or an exception of any kind.

    Exceptions travel as values, because not each may be raised anywhere: a coroutine cannot raise
    StopIteration, a task with KeyboardInterrupt stops its event loop, and the cancellation of what
    is awaited is not that of the one who awaits it.
    """

    value: T | None
    error: BaseException | None

    def result(self) -> T:
        """The value; or the exception is raised, once.

        It is not kept. It has a traceback, in whose frames it would else be found again: then
        nothing that these hold (graphs, logprobs) is freed before the garbage collector runs.
        """
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return cast("T", self.value)
        finally:
            del error


def is_awaitable(value: object) -> bool:
    """Whether it is a coroutine, or a future of asyncio or of ``concurrent.futures``."""
    return isinstance(value, futures.Future) or inspect.isawaitable(value)


def is_coroutine_function(function: object) -> bool:
    """Whether calling it gives a coroutine; also of partials and of objects that are called."""
    if isinstance(function, partial):
        return is_coroutine_function(function.func)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 -- of an object that is called
    )


def in_thread(work: Callable[[], T], name: str) -> futures.Future[T]:
    """Call a function in a thread of its own, in a copy of this context.

    A thread cannot be stopped. When nobody waits for it any more it goes on by itself, and what
    comes of it is thrown away. It is a daemon, which does not keep the program from ending.
    """
    future: futures.Future[T] = futures.Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled

    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(_fulfil, future, work), name=name, daemon=True).start()
    return future


def _fulfil(future: futures.Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        del future  # it holds the exception, whose traceback holds this frame


@types.coroutine
def on_event_loop() -> Generator[None, None, None]:
    """Go on when an event loop runs: see `regularizers.event_loop.run_all`.

    Where one runs already, it is as ``asyncio.sleep(0)``.
    """
    yield


class Suspended(NamedTuple):
    """A coroutine that needs an event loop to go on, and the context that it was begun in."""

    coroutine: Coroutine[Any, Any, Any]
    context: contextvars.Context


async def wait_for(awaitable: Any, seconds: float | None) -> Done[Any] | None:
    """What came of a coroutine or a future; None if it took longer.

    What took longer, or is not waited for because the waiting is cancelled, is cancelled. It is
    left behind if it does not heed that.

    Raises:
        RuntimeError: It is a future of an event loop that cannot run meanwhile.
    """
    import asyncio  # noqa: PLC0415 -- takes longer to import than all of this package

    future = None
    try:
        await on_event_loop()
        if seconds is not None and seconds <= 0:
            return None
        future = _future_of(awaitable)
        await asyncio.wait({future}, timeout=seconds)
        return future.result() if future.done() else None
    finally:
        if future is not None:
            future.cancel()  # does nothing to one that is done
        if future is None or isinstance(awaitable, futures.Future):
            give_up(awaitable)


def _future_of(awaitable: Any) -> asyncio.Future[Done[Any]]:
    import asyncio  # noqa: PLC0415 -- as above

    loop = asyncio.get_running_loop()
    if isinstance(awaitable, futures.Future):
        return _follow(awaitable, loop)
    if asyncio.isfuture(awaitable) and awaitable.get_loop() is not loop and not awaitable.done():
        raise RuntimeError(
            f"{awaitable!r} belongs to an event loop that cannot run while custom_loss waits. "
            "Return a coroutine, or a concurrent.futures.Future."
        )
    task = loop.create_task(_settle(awaitable))
    # If it is cancelled before its first step, the coroutine in it has never begun.
    task.add_done_callback(lambda _: give_up(awaitable))
    return task


def _follow(source: futures.Future[T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Done[T]]:
    # Not asyncio.wrap_future, which never ends for a future that has failed with StopIteration.
    future: asyncio.Future[Done[T]] = loop.create_future()

    # These take the source as it comes: if they held it, it would hold itself, and its value.
    def deliver(done: futures.Future[T]) -> None:
        if not future.done():
            future.set_result(_outcome(done))

    def notify(done: futures.Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, done)

    source.add_done_callback(notify)
    return future


async def _settle(awaitable: Any) -> Done[Any]:
    try:
        return Done(await awaitable, None)
    except BaseException as error:
        return Done(None, error)


def _outcome(source: futures.Future[T]) -> Done[T]:
    if source.cancelled():
        return Done(None, futures.CancelledError())
    error = source.exception()
    return Done(source.result() if error is None else None, error)


def give_up(awaitable: Any) -> None:
    """Python warns of a coroutine that was never begun, unless it is closed."""
    if inspect.iscoroutine(awaitable):
        # One that was begun is another regularizer's too, which goes on with it.
        if inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
            awaitable.close()
    elif isinstance(awaitable, futures.Future):
        awaitable.cancel()
