"""The numbers beside an axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from telemetry.viewer.charts.digits import number_text


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two others, about as many as asked for; one for a range without extent.

    Example:
        >>> round_ticks(0.3, 9.0, 4), round_ticks(3.0, 3.0, 4)
        ([2.5, 5.0, 7.5], [3.0])
        >>> round_ticks(1.0, 9.0, 4)
        [2.0, 4.0, 6.0, 8.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power: float = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 0.0
    if power == 0:  # they are too near to each other
        return [low]
    near = rough * (1 - 1e-6)  # what a subtraction adds to a round number is no reason for fewer
    step = next((power * times for times in (1, 2, 2.5, 5) if power * times >= near), power * 10)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """The same for a logarithmic axis: powers of ten, or round numbers where it has too few.

    Args:
        low: The least number, above zero.
        high: The greatest.
        count: About how many to give; 4 at least.

    Example:
        >>> log_ticks(0.2, 3.0, 4), log_ticks(1.5, 7.0, 4), log_ticks(0.5, 3.0e6, 4)
        ([0.2, 0.5, 1.0, 2.0], [2.0, 4.0, 6.0], [1.0, 100.0, 10000.0, 1000000.0])
    """
    if high < 10 * low:
        return round_ticks(low, high, count)
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))  # powers between them
    step = max(math.ceil((last - first) / count), 1)
    parts = (1, 2, 5) if last - first + 1 <= count // 2 else (1,)
    powers = [10.0**power for power in range(first - 1 - (first - 1) % step, last + 1, step)]
    return [tick for power in powers for part in parts if low <= (tick := part * power) <= high]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """The numbers of an axis, each with as many digits as it takes.

    Example:
        >>> tick_texts([1234567.0, 1234568.0]), tick_texts([1000.25, 1000.5])
        (['1,234,567', '1,234,568'], ['1000.25', '1000.5'])
    """
    apart = min((after - before for before, after in itertools.pairwise(ticks)), default=0.0)
    largest = max(map(abs, ticks), default=0.0)
    digits = 6 if apart <= 0 else math.ceil(math.log10(max(largest / apart, 1))) + 2
    return [number_text(tick, min(max(digits, 4), 15)) for tick in ticks]
