"""One pass over the batches of a loop: it sets the context's step, and times it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from telemetry.ambient import Layer, ambient_metadata, in_a_loop
from telemetry.registry import Registry, default_registry
from telemetry.spans import NOTHING
from telemetry.timing import TIMING, StepTimer, Stopwatch, batch_size_of


@dataclass(slots=True)
class Loop:
    """Where a training loop is, and how its steps are counted.

    Attributes:
        epoch: Which epoch it is; None if that was not said.
        step: The optimizer step in progress, or else the last one.
        total_steps: Of the whole run; None if they are not known.
        accumulate: Batches to a step.
        batch_size: Items of each batch; None to look for them in it.
        registry: The bus.
        clock: Nanoseconds.
        watch: The same, held while the loop is paused.
        following: The steps before the next pass, and its epoch.
        mover: The pass that has said last where the loop is.
    """

    epoch: int | None = None
    step: int = 0
    total_steps: int | None = None
    accumulate: int = 1
    batch_size: int | None = None
    registry: Registry = default_registry
    clock: Callable[[], int] = time.monotonic_ns
    watch: Stopwatch = field(init=False)
    following: tuple[int, int | None] = field(init=False)
    mover: Pass | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.clock)
        self.following = self.step, self.epoch

    def total_at(self, step: int) -> int | None:
        """``total_steps``, unless there are more than were said."""
        return self.total_steps if step <= (self.total_steps or 0) else None


class Pass:
    """One pass over the batches: what is to be told of it, and when.

    Args:
        loop: The loop that makes it.

    Attributes:
        left: Whether it is over.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._timer = StepTimer(loop.watch)
        self._outer: tuple[Pass | None, int | None, int] | None = None
        self._in_a_loop = False
        self._epoch: int | None = None
        self._before = 0  # steps before this pass
        self._reached = 0  # the step of the last batch
        self._step = 0  # the step that a batch is drawn for, or is worked on
        self._batches = 0  # of that step
        self._place: dict[str, int | None] = {}
        self._timed = False
        self._ended = False
        self.left = False

    def wait(self) -> None:
        """Whoever iterates is through with a batch, if there was one, and waits for the next."""
        if self._outer is None:
            self._begin()
        elif self._batches == self._loop.accumulate:
            self._end_step()
        if not self._batches:
            self._begin_step()
        if self._timed:
            self._timer.wait()

    def work(self, batch: object) -> None:
        """The batch is there."""
        loop = self._loop
        self._batches += 1
        self._reached = loop.step = self._step
        loop.mover, loop.epoch = self, self._epoch
        if (ambient_metadata() or NOTHING).get("step") != self._step:
            Layer.lay(self._place, self)  # the source has put back what was before this loop
        if self._timed:
            self._timer.work(batch_size_of(batch) if loop.batch_size is None else loop.batch_size)

    def end(self) -> None:
        """There is no further batch: what was accumulated makes a last, smaller step."""
        if self._batches:
            self._end_step()
        self._ended = True

    def leave(self) -> None:
        """The loop is left, in whatever way."""
        if self._outer is None:
            return
        self.left = True
        Layer.lift(self)
        loop = self._loop
        if self._ended or self._reached > self._before + 1:
            after = self._reached, None if self._epoch is None else self._epoch + 1
            # One that is closed late must not set back what another has come to.
            loop.following = max(loop.following, after, key=lambda it: (it[0], it[1] or 0))
        elif loop.mover is self:
            loop.mover, loop.epoch, loop.step = self._outer
        self._outer = None  # or each pass would keep the one before

    def _begin(self) -> None:
        loop = self._loop
        self._outer = loop.mover, loop.epoch, loop.step
        self._in_a_loop = in_a_loop()
        self._before, self._epoch = loop.following
        self._step = self._reached = self._before
        loop.mover, loop.epoch, loop.step = self, self._epoch, self._before

    def _begin_step(self) -> None:
        self._step = step = self._step + 1
        place: dict[str, int | None] = {} if self._epoch is None else {"epoch": self._epoch}
        loop = self._loop
        total = loop.total_at(step)
        if total is not None or self._in_a_loop:
            place["total_steps"] = total  # None hides that of the loop around
        place["step"] = step
        self._place = place
        Layer.lay(place, self)  # before the batch is drawn: that is done for this step already
        self._timed = loop.registry.enabled(TIMING)

    def _end_step(self) -> None:
        self._batches = 0
        if self._timed:
            where: Mapping[str, int | None] = self._place
            if self._in_a_loop:
                where = {name: value for name, value in where.items() if value is not None}
            self._loop.registry.execute(TIMING, self._timer.step(), where)
