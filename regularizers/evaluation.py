"""One regularizer's function, called once: here, in a thread, or awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar, cast

from regularizers.backends import find_backend, loaded
from regularizers.event_loop import run
from regularizers.functions import Function
from regularizers.problem import Problem
from regularizers.terms import Term, conclude, evaluate
from regularizers.trees import Tree
from regularizers.waiting import Done, in_thread, is_awaitable, on_event_loop

T = TypeVar("T")


class Evaluation:
    """One evaluation of a regularizer, and the time that it may take.

    Args:
        function: What is called.
        problem: What it is called on.
        timeout: In seconds; None for no limit.
        threads: Whether to call it in a thread of its own, unless it is awaited.

    Attributes:
        asynchronous: Whether it was awaited, as far as that is known.
    """

    def __init__(
        self, function: Function, problem: Problem, timeout: float | None, *, threads: bool
    ) -> None:
        self._function = function
        self._problem = problem
        self._timeout = timeout
        # What has to be awaited while it is traced is so on a loop of its own, which only a thread
        # can have beside others.
        self._at_once = problem.recording is not None and problem.recording.traces
        self._threaded = threads and (self._at_once or not function.is_async)
        self._awaited_failed = False
        self.asynchronous = function.is_async

    async def turn(self) -> None:
        """Let those go first that need no event loop, so that their time is not counted here."""
        if self._threaded or (self.asynchronous and not self._at_once):
            await on_event_loop()

    def begin(self) -> Any:
        """Call the function, here or in a thread.

        Returns:
            Its `Term`, or what is to be awaited and handed to `settle`.

        Raises:
            TimeoutError: It took longer.
        """
        self._started = time.monotonic()
        if self._threaded:
            return in_thread(_carried(self._evaluate_at_once), self._function.label)
        if self._at_once:
            return self._in_time(self._evaluate_at_once())
        result = self._function.call(self._problem.data, self._problem.logprobs)
        if find_backend(result) is None and is_awaitable(result):
            self.asynchronous = True
            return result
        return self._in_time(conclude(self._function, result, self._problem))

    def left(self) -> float | None:
        """Seconds that are left of its time."""
        if self._timeout is None:
            return None
        return self._timeout - (time.monotonic() - self._started)

    def settle(self, done: Done[Any] | None) -> Term:
        """The term, from what came of what was awaited; None if that took too long.

        Raises:
            TimeoutError: It took too long.
        """
        result = self._result(done)
        if self._threaded:
            return cast("Term", result)
        return conclude(self._function, result, self._problem)

    def failed_with(self, error: BaseException) -> bool:
        """Whether an exception is a failure of this regularizer alone.

        It is if it is an ``Exception``, or if what was awaited was cancelled, and not the one who
        awaited it.
        """
        if isinstance(error, Exception):
            return True
        if not self._awaited_failed:
            return False
        import asyncio  # noqa: PLC0415 -- imported already, because something was awaited

        return isinstance(error, asyncio.CancelledError)

    def _evaluate_at_once(self) -> Term:
        return evaluate(self._function.calling(self._call_and_await), self._problem)

    def _call_and_await(self, data: Any, logprobs: Tree) -> Any:
        result = self._function.call(data, logprobs)
        if not is_awaitable(result):
            return result
        self.asynchronous = True
        return self._result(run(result, self.left()))

    def _result(self, done: Done[Any] | None) -> Any:
        if done is None:
            raise TimeoutError(f"It took longer than timeout={self._timeout} s.")
        self._awaited_failed = done.error is not None
        return done.result()

    def _in_time(self, term: Term) -> Term:
        left = self.left()
        if left is not None and left < 0:
            raise TimeoutError(
                f"It took {time.monotonic() - self._started:.3g} s, longer than "
                f"timeout={self._timeout} s. In the caller's thread it could not be stopped; "
                "with parallel=True it is given up in time."
            )
        return term


def _carried(work: Callable[[], T]) -> Callable[[], T]:
    """With what the frameworks keep by thread, as it is in this one."""
    states = [backend.carry() for backend in loaded()]

    def in_another() -> T:
        with ExitStack() as stack:
            for state in states:
                stack.enter_context(state())
            return work()

    return in_another
