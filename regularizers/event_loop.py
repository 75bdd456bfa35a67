"""Running coroutines in a function that is not asynchronous itself.

They are driven in order and in the caller's thread for as long as they need no event loop, which
most never do. Those that do are then run together on a loop of their own, still in the caller's
thread, so that what frameworks keep by thread (tapes, traces, autocast) holds for them too.
"""

from __future__ import annotations

import contextvars
from collections.abc import Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar, cast

from regularizers.waiting import Done, Suspended, wait_for

T = TypeVar("T")

Job: TypeAlias = Coroutine[Any, Any, T]
"""Of what it awaits, `regularizers.waiting.on_event_loop` comes first."""


def run_all(jobs: Iterable[Job[T]]) -> list[T]:
    """The results of coroutines, in the order given, each run in a copy of this context.

    If one raises, the others are cancelled, and it goes on. Those that have not begun never do.
    """
    results: list[T | None] = []
    suspended: dict[int, Suspended] = {}
    try:
        for place, job in enumerate(jobs):
            context = contextvars.copy_context()
            try:
                context.run(job.send, None)
            except StopIteration as end:
                results.append(end.value)
            else:
                suspended[place] = Suspended(job, context)
                results.append(None)
    except BaseException:
        if suspended:
            from regularizers import own_loop  # noqa: PLC0415 -- imports asyncio, which takes long

            own_loop.cancel(suspended.values())
        raise
    if suspended:
        from regularizers import own_loop  # noqa: PLC0415 -- as above

        finished = own_loop.run_together(suspended.values())
        for place, result in zip(suspended, finished, strict=True):
            results[place] = result
    return cast("list[T]", results)


def run(awaitable: Any, seconds: float | None) -> Done[Any] | None:
    """What came of a coroutine or a future, awaited here and now; None if it took longer."""
    return run_all([wait_for(awaitable, seconds)])[0]
