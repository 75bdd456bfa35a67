"""Interleaved timing: every contender once a round, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from timeit import Timer
from typing import TypeAlias

SLICE_NS = 1_500_000
EMPTY_LOOP = "pass"

Clock: TypeAlias = Callable[[], int]
THREAD_CPU_NS: Clock = time.thread_time_ns
"""The work of this thread: what other processes do to the machine hardly shows."""
WALL_NS: Clock = time.perf_counter_ns
"""All that the caller waits for, the kernel's input and output included."""


@dataclass(frozen=True)
class Contender:
    """A statement to be timed, and the names it uses.

    ``setup`` is another, run before each timing and no part of it.
    """

    name: str
    statement: str
    names: Mapping[str, object]
    setup: str = "pass"


@dataclass(frozen=True)
class Result:
    """A contender's nanoseconds per operation, one sample a round, without the loop's share."""

    name: str
    samples: Sequence[float]

    @property
    def ns(self) -> float:
        return median(self.samples)

    def ratio(self, peer: Result) -> float:
        """The median of the rounds' ratios: neighbours in time share their disturbances."""
        return median(a / b for a, b in zip(self.samples, peer.samples, strict=True))


def measure(contenders: Sequence[Contender], rounds: int, clock: Clock) -> list[Result]:
    """Time every contender once a round, in an order that rotates from round to round.

    `timeit.Timer` gives all of them the same loop, with the garbage collector off; the cost of
    that loop without a statement is timed in each round too and taken off.
    """
    timers = [Timer(EMPTY_LOOP, timer=clock)]
    timers += [Timer(c.statement, c.setup, timer=clock, globals=dict(c.names)) for c in contenders]
    numbers = [_number(timer) for timer in timers]
    samples: list[list[float]] = [[] for _ in timers]
    for round_number in range(rounds):
        for offset in range(len(timers)):
            index = (round_number + offset) % len(timers)
            samples[index].append(timers[index].timeit(numbers[index]) / numbers[index])
    loop = median(samples[0])
    return [
        Result(contender.name, [sample - loop for sample in own])
        for contender, own in zip(contenders, samples[1:], strict=True)
    ]


def _number(timer: Timer) -> int:
    # The least of several: one hiccup must not leave a contender with a single operation a round.
    number = 1
    while (taken := min(timer.repeat(5, number))) < SLICE_NS / 4:
        number *= 2
    return max(1, round(number * SLICE_NS / taken))
