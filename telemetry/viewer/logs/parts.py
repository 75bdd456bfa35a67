"""The parts of runs: what each attempt left in each file, and where it began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from telemetry.viewer.logs.leading import of_training, weight
from telemetry.viewer.logs.records import Records

_PART: Final = "source, run_id, attempt, rank"
_PARTS: Final = f"""
WITH epochs AS (
    SELECT {_PART}, event, floor(epoch) AS epoch, min(rowid) AS row, count(step) AS steps,
        min(step) AS first, max(step) AS last
    FROM records GROUP BY ALL
), events AS (
    SELECT {_PART}, event, min(row) AS row, sum(steps) AS steps, min(first) AS step,
        min(epoch) FILTER (steps > 0) AS epoch,
        arg_min(first, epoch) AS step_of_epoch,
        coalesce(bool_or(epoch IS NOT NULL AND first < before), false) AS begins_anew
    FROM (SELECT *, max(last) OVER (PARTITION BY {_PART}, event ORDER BY epoch
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM epochs)
    GROUP BY ALL
), parts AS (
    SELECT {_PART}, min(row) AS row, arg_max(events, {weight("steps")}) AS led
    FROM events GROUP BY ALL
)
SELECT {_PART}, [led.step, led.epoch, led.step_of_epoch], led.begins_anew,
    led.step IS NOT NULL AND {of_training("led.event")}
FROM parts ORDER BY row"""


class Start(NamedTuple):
    """Where an attempt begins.

    Attributes:
        step: Its lowest step.
        epoch: Its first epoch; None where none is told.
        step_of_epoch: The lowest step in that epoch; None where none is told, or the steps of the
            run do not begin anew in each epoch, so that it says no more.
    """

    step: float
    epoch: float | None = None
    step_of_epoch: float | None = None


class Part(NamedTuple):
    """What one attempt at a run left in one file.

    Attributes:
        source: The number of the file.
        run_id: As recorded, None where none was.
        attempt: Likewise.
        rank: Likewise.
        start: Where its leading event has its first steps (see `telemetry.viewer.logs.leading`),
            None where it has none.
        begins_anew: Whether the steps of that event go back in a later epoch.
        trains: Whether they are steps of the training itself.
    """

    source: int
    run_id: str | None
    attempt: int | None
    rank: int | None
    start: Start | None
    begins_anew: bool
    trains: bool


def find_parts(records: Records) -> list[Part]:
    """What each attempt at each run left in each file, in the order in which they begin.

    Args:
        records: The records.
    """
    return [
        Part._make((*part, None if start[0] is None else Start(*start), begins_anew, trains))
        for *part, start, begins_anew, trains in records.rows(_PARTS)
    ]


def until(part: Part, of_run: Sequence[Part]) -> Start | None:
    """From where on a later attempt is valid in place of a part; None if there is none.

    Epochs count where all later attempts tell them. What is no step of the training says nothing
    once there was one: an attempt that has only read its checkpoint yet takes nothing away.

    Args:
        part: The part.
        of_run: All parts of its run.

    Example:
        >>> first = Part(0, "a", 1, None, Start(1.0, 1.0, 1.0), begins_anew=True, trains=True)
        >>> second = Part(0, "a", 2, None, Start(1.0, 2.0, 1.0), begins_anew=False, trains=True)
        >>> until(first, [first, second]), until(second, [first, second])
        (Start(step=1.0, epoch=2.0, step_of_epoch=1.0), None)
    """
    trained = min((_turn(other) for other in of_run if other.trains), default=math.inf)
    starts = [
        other.start
        for other in of_run
        if other.start is not None
        and _turn(other) > _turn(part)
        and (other.trains or _turn(other) < trained)
    ]
    if not starts:
        return None
    step = min(start.step for start in starts)
    told = [(start.epoch, start.step_of_epoch) for start in starts if start.epoch is not None]
    if len(told) < len(starts):
        return Start(step)
    epoch, step_of_epoch = min(told)
    return Start(step, epoch, step_of_epoch if any(o.begins_anew for o in of_run) else None)


def _turn(part: Part) -> int:
    return part.attempt or 0
