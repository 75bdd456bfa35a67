"""An event loop of our own, also where another one runs already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from regularizers.waiting import Suspended

GRACE: Final = 1.0
"""Seconds for what was cancelled to come to its end."""


def run_together(suspended: Iterable[Suspended]) -> list[Any]:
    """The results of coroutines, run in this thread to their end.

    If one raises, the others are cancelled, and it goes on. So it does if this is interrupted.
    """
    with _outer_loop_set_aside(), _new_loop() as loop:
        tasks: list[asyncio.Task[Any]] = []
        try:
            tasks.extend(loop.create_task(one.coroutine, context=one.context) for one in suspended)
            loop.run_until_complete(asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))
        finally:
            _end(loop, tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]
        for error in filter(None, errors):
            raise error
        return [task.result() for task in tasks]


def cancel(suspended: Iterable[Suspended]) -> None:
    """Cancel coroutines that have not gone on yet."""
    for one in suspended:
        with contextlib.suppress(asyncio.CancelledError, StopIteration):
            one.context.run(one.coroutine.throw, asyncio.CancelledError())


@contextmanager
def _new_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        # Not asyncio.Runner, which waits for the threads of the default executor, however long.
        loop.close()


@contextmanager
def _outer_loop_set_aside() -> Iterator[None]:
    # A running loop waits for this call like for any other. It is not told of the one inside it.
    outer = asyncio._get_running_loop()  # noqa: SLF001 -- get_running_loop() would raise
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio._leave_task(outer, task)  # noqa: SLF001 -- documented under "Extending asyncio"
    asyncio._set_running_loop(None)  # noqa: SLF001 -- "to be used by event loops"
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)  # noqa: SLF001 -- as above
        if task is not None:
            asyncio._enter_task(outer, task)  # noqa: SLF001 -- as above


def _end(loop: asyncio.AbstractEventLoop, jobs: list[asyncio.Task[Any]]) -> None:
    """Cancel what is left on the loop: the jobs, what they awaited, and what that has begun."""
    try:
        for job in jobs:
            job.cancel()
        _run_for_grace(loop, [job for job in jobs if not job.done()])
        left = asyncio.all_tasks(loop)
        for task in left:
            if not task.cancelling():  # a second time would interrupt its cleaning up
                task.cancel()
        _run_for_grace(loop, [loop.create_task(_wind_up(left))])
    finally:
        for task in asyncio.all_tasks(loop):
            _abandon(task)


async def _wind_up(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _run_for_grace(loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[Any]]) -> None:
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))


def _abandon(task: asyncio.Task[Any]) -> None:
    """End a task that does not heed its cancellation, or was interrupted in it.

    What it raises at that is thrown away: its regularizer has failed already.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 -- as asyncio.gather does
    with contextlib.suppress(Exception, asyncio.CancelledError):
        task.get_coro().close()
