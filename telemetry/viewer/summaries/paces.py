"""How far runs came, how fast, and how often their gradients were clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from telemetry.viewer.frames.origins import find_origins
from telemetry.viewer.logs.clipped import IS_CLIPPED, IS_DRY_RUN, IS_FINITE, IS_STOP, SCALE
from telemetry.viewer.logs.engine import quoted
from telemetry.viewer.logs.records import OURS, Records
from telemetry.viewer.logs.runs import TURN


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a run came, and how fast; None where it does not tell.

    Attributes:
        step: The last step.
        total_steps: How many there were to be.
        epoch: The last epoch.
        steps_per_second: By ``training.timing``, else by the times of the steps' records.
        samples_per_second: By ``training.timing``.
    """

    step: float | None = None
    total_steps: float | None = None
    epoch: float | None = None
    steps_per_second: float | None = None
    samples_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class ClipTotals:
    """What a run's gradient clipper did.

    Attributes:
        clips: How often it looked at the gradients: once a step, of each optimizer.
        clipped: How often it clipped anything; not where a gradient was not finite.
        skipped: How often it skipped the step, because a gradient was not finite.
        rate: The share of those in which it clipped.
        scale_mean: The mean of the smallest factor of each time that the gradients were finite,
            None where none is known.
        dry_run: Whether these are dry runs, and it only says what it would have done: so of a run
            that has no others, which else do not count.
    """

    clips: int
    clipped: int
    skipped: int
    rate: float
    scale_mean: float | None
    dry_run: bool


_PLACES: Final = "SELECT place, max(step), max(epoch) FROM current GROUP BY place"
_SPEEDS: Final = """
SELECT place, sum(steps) / sum(seconds) FROM (
    SELECT place, max(counted) - min(counted) AS steps,
        epoch(max(timestamp) - min(timestamp)) AS seconds
    FROM ({placed}) WHERE isfinite(counted) AND timestamp IS NOT NULL GROUP BY place, attempt)
WHERE seconds > 0 AND steps > 0 GROUP BY place"""
_PLACED: Final = "SELECT place, attempt, timestamp, step AS counted FROM current"
_COUNTED_ON: Final = """
SELECT place, attempt, timestamp, step + before AS counted
FROM current JOIN (VALUES {offsets}) AS epochs(run, event, number, before)
ON current.run = epochs.run AND current.event = epochs.event
AND floor(current.epoch) = epochs.number"""
_TOTALS: Final = f"""
SELECT place, arg_max(total, turn) FILTER (isfinite(total))
FROM (
    SELECT place, {TURN} AS turn, try_cast(metadata->>'total_steps' AS DOUBLE) AS total
    FROM current WHERE contains(metadata::VARCHAR, '"total_steps"'))
GROUP BY place"""
_TIMINGS: Final = f"""
SELECT place, 1e9 * count(took) / sum(took),
    1e9 * sum(size) FILTER (isfinite(size)) / sum(took) FILTER (isfinite(size))
FROM (
    SELECT place, try_cast(measurements->>'step_duration' AS DOUBLE) AS took,
        try_cast(measurements->>'batch_size' AS DOUBLE) AS size
    FROM current WHERE form = {OURS} AND event = 'training.timing')
WHERE took > 0 AND isfinite(took) GROUP BY place"""
_CLIPS: Final = f"""
SELECT place, count(*), count(*) FILTER ({IS_CLIPPED}),
    count(*) FILTER (metadata->>'outcome' = 'skipped'),
    avg({SCALE}) FILTER ({IS_FINITE} AND isfinite({SCALE})), {IS_DRY_RUN} AS dry_run
FROM current WHERE {IS_STOP} GROUP BY place, dry_run ORDER BY dry_run DESC"""


def paces(records: Records) -> dict[int, Pace]:
    """The pace of each run, by its number; `find_runs` has told the runs apart."""
    timings = {place: timing for place, *timing in records.rows(_TIMINGS)}
    totals = dict(records.rows(_TOTALS))
    by_times = _speeds_by_times(records)
    return {
        place: Pace(
            step, totals.get(place), epoch, *timings.get(place, (by_times.get(place), None))
        )
        for place, step, epoch in records.rows(_PLACES)
    }


def clip_totals(records: Records) -> dict[int, ClipTotals]:
    """What the clipper of each run that has one did."""
    return {  # dry runs come first, so that others replace them
        place: ClipTotals(clips, clipped, skipped, clipped / clips, scale, dry_run)
        for place, clips, clipped, skipped, scale, dry_run in records.rows(_CLIPS)
    }


def _speeds_by_times(records: Records) -> dict[int, float]:
    """Steps a second by the times of the steps' records; attempts count without the time between.

    Where steps begin anew in each epoch, they are counted on, and those of other events, which may
    do so themselves, left out.
    """
    speeds = dict(records.rows(_SPEEDS.format(placed=_PLACED)))
    offsets = ", ".join(
        f"({quoted(run)}, {quoted(origin.leading)}, {number!r}, {before!r})"
        for run, origin in find_origins(records.connection).items()
        if origin.offsets is not None
        for number, before in zip(*(each.tolist() for each in origin.offsets), strict=True)
    )
    if offsets:
        placed = _COUNTED_ON.format(offsets=offsets)
        speeds |= dict(records.rows(_SPEEDS.format(placed=placed)))
    return speeds
