"""Facts of runs as a person writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from telemetry.cli.output.printable import place_text, printable
from telemetry.viewer.summaries.courses import Course
from telemetry.viewer.summaries.metric_ends import MetricEnd
from telemetry.viewer.summaries.paces import ClipTotals, Pace
from telemetry.viewer.summaries.summary import Summary

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LARGE = 1e6


def number(value: float) -> str:
    """A number with the digits that a person compares.

    Example:
        >>> [number(value) for value in (0.0002, 2.54321, 43674.37, 500, float("nan"))]
        ['0.0002', '2.543', '43,674', '500', 'NaN']
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if 1000 <= abs(value) < _LARGE or (value == round(value) and abs(value) < _LARGE):  # noqa: PLR2004 -- from where on commas help
        return f"{value:,.0f}"
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """How long something took.

    Example:
        >>> [seconds(value) for value in (0.68, 59.94, 93, 9000, 200000)]
        ['0.68 s', '59.9 s', '1 min 33 s', '2 h 30 min', '2 d 7 h']
    """
    if value < 10:  # noqa: PLR2004 -- one digit before the point
        return f"{value:.2g} s"
    if round(value, 1) < _MINUTE:
        return f"{value:.1f} s"
    rounded = round(value)
    if rounded < _HOUR:
        return f"{rounded // _MINUTE} min {rounded % _MINUTE} s"
    if rounded < _DAY:
        return f"{rounded // _HOUR} h {rounded % _HOUR // _MINUTE} min"
    return f"{rounded // _DAY} d {rounded % _DAY // _HOUR} h"


def times(count: int) -> str:
    """How often.

    Example:
        >>> times(1), times(2500)
        ('once', '2,500 times')
    """
    return "once" if count == 1 else f"{count:,} times"


def status(course: Course) -> str:
    """How a run ended."""
    if course.status == "failed":
        return f"failed: {printable(course.error)}" if course.error else "failed"
    if course.status == "no end":
        return "no end: it is running, or was killed"
    return "unknown: it has no workflow.run events" if course.status == "unknown" else "finished"


def span(course: Course) -> str:
    """How long a run took, and when that was, in this machine's zone."""
    parts = [] if course.duration_s is None else [seconds(course.duration_s)]
    if course.began is not None and course.ended is not None:
        parts.append(f"{_moment(course.began)} to {_moment(course.ended)}")
    if course.attempt > 1:
        parts.append(f"{course.attempt} attempts")
    return ", ".join(parts)


def steps(pace: Pace) -> str:
    """How many steps a run came."""
    if pace.step is None:
        return ""
    of = f" of {place_text(pace.total_steps)}" if pace.total_steps is not None else ""
    return place_text(pace.step) + of


def way(pace: Pace) -> str:
    """How far a run came, in steps and epochs.

    Example:
        >>> way(Pace(step=460, total_steps=500, epoch=20)), way(Pace(epoch=3))
        ('460 of 500, epoch 20', 'epoch 3')
    """
    epoch = "" if pace.epoch is None else f"epoch {place_text(pace.epoch)}"
    return ", ".join(filter(None, (steps(pace), epoch)))


def speed(pace: Pace) -> str:
    """How fast it was."""
    parts = [
        f"{number(value)} {what}{'s' * (value != 1)} a second"
        for value, what in (
            (pace.steps_per_second, "step"),
            (pace.samples_per_second, "sample"),
        )
        if value is not None
    ]
    return ", ".join(parts)


def clipping(clip: ClipTotals) -> str:
    """What the clipper did."""
    parts = [f"{percent(clip.rate)} of {clip.clips:,} times"]
    parts += ["in a dry run"] if clip.dry_run else []
    parts += [] if clip.scale_mean is None else [f"mean scale {clip.scale_mean:.3g}"]
    parts += [f"{clip.skipped:,} skipped"] if clip.skipped else []
    return ", ".join(parts)


def clip_rate(clip: ClipTotals) -> str:
    """How often it clipped, or would have."""
    return percent(clip.rate) + " (dry run)" * clip.dry_run


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.0674), percent(0.0), percent(0.00004), percent(1.0)
        ('6.7 %', '0 %', '0.004 %', '100 %')
    """
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.3g} %"  # noqa: PLR2004 -- two digits


def best(end: MetricEnd) -> str:
    """The best value of a metric."""
    return "" if end.best is None else number(end.best)


def where_best(end: MetricEnd) -> str:
    """Which value that is, and where."""
    if end.best is None:
        return ""
    return (
        str(end.goal) if end.best_step is None else f"{end.goal}, step {place_text(end.best_step)}"
    )


def alerts(run: Summary) -> Iterator[str]:
    """A line for each rule that was raised."""
    for alert in run.alerts:
        severity = f" ({printable(alert.severity)})" if alert.severity else ""
        now = ", still raised" if alert.still else ""
        said = f": {printable(alert.message)}" if alert.message else ""
        yield f"{printable(alert.rule)}{severity} {times(alert.raised)}{now}{said}"


def failures(run: Summary) -> Iterator[str]:
    """A line for each thing that failed."""
    for failure in run.failures:
        said = f": {printable(failure.reason)}" if failure.reason else ""
        yield f"{failure.what} {printable(failure.name)} {times(failure.count)}{said}"


def drops(run: Summary) -> Iterator[str]:
    """A line for each way in which a handler lost events."""
    for drop in run.drops:
        yield f"{printable(drop.handler)} lost {drop.dropped:,} ({printable(drop.policy)})"


def troubles(run: Summary) -> str:
    """What went wrong, counted."""
    counted = (
        (sum(alert.raised for alert in run.alerts), "alert"),
        (sum(failure.count for failure in run.failures), "failure"),
        (sum(drop.dropped for drop in run.drops), "drop"),
        (run.bad_lines, "bad line"),
    )
    return ", ".join(f"{n:,} {what}{'s' * (n != 1)}" for n, what in counted if n)


def _moment(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
