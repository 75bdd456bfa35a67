"""How far runs came, how fast, and how often their gradients were clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
class Clipping:
    """What a run's gradient clipper did.

    Attributes:
        clips: How often it looked at the gradients: once a step, of each optimizer.
        clipped: How often it clipped anything.
        skipped: How often it skipped the step, because a gradient was not finite.
        rate: The share of those in which it clipped.
        scale_mean: The mean of the smallest factor of each time, None where none is known.
    """

    clips: int
    clipped: int
    skipped: int
    rate: float
    scale_mean: float | None


_ATTEMPTS: Final = """
SELECT place, attempt, max(step) AS step, max(epoch) AS epoch,
    count(DISTINCT step) FILTER (timestamp IS NOT NULL) - 1 AS steps,
    epoch(max(timestamp) FILTER (step IS NOT NULL))
        - epoch(min(timestamp) FILTER (step IS NOT NULL)) AS seconds
FROM current GROUP BY place, attempt"""
_PLACES: Final = f"""
SELECT place, max(step), max(epoch),
    sum(steps) FILTER (seconds > 0) / sum(seconds) FILTER (seconds > 0)
FROM ({_ATTEMPTS}) GROUP BY place"""
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
SELECT place, count(*), count(*) FILTER (clipped > 0 OR (clipped IS NULL AND scale < 1)),
    count(*) FILTER (outcome = 'skipped'), avg(scale) FILTER (isfinite(scale))
FROM (
    SELECT place, try_cast(measurements->>'groups_clipped' AS DOUBLE) AS clipped,
        try_cast(measurements->>'scale' AS DOUBLE) AS scale, metadata->>'outcome' AS outcome
    FROM current WHERE form = {OURS} AND event = 'smartclip.clip.stop')
GROUP BY place"""


def paces(records: Records) -> dict[int, Pace]:
    """The pace of each run, by its number; `find_runs` has told the runs apart."""
    timings = {place: timing for place, *timing in records.rows(_TIMINGS)}
    totals = dict(records.rows(_TOTALS))
    return {
        place: Pace(step, totals.get(place), epoch, *_speeds(timings.get(place), steps_per_second))
        for place, step, epoch, steps_per_second in records.rows(_PLACES)
    }


def clippings(records: Records) -> dict[int, Clipping]:
    """What the clipper of each run that has one did."""
    return {
        place: Clipping(clips, clipped, skipped, clipped / clips, scale)
        for place, clips, clipped, skipped, scale in records.rows(_CLIPS)
    }


def _speeds(
    timing: list[float | None] | None, by_time: float | None
) -> tuple[float | None, float | None]:
    steps, samples = timing or (by_time, None)
    return steps, samples
