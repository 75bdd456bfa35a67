"""What clippers would have done in a run, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from telemetry.cli.output.printable import place_text, printable
from telemetry.viewer.clips.clippings import Series
from telemetry.viewer.clips.comparison import Comparison, Outcome
from telemetry.viewer.clips.plans import SMARTCLIP
from telemetry.viewer.clips.tally import Tally, TallySummary

MOST_GROUPS: Final = 10
"""Groups of a clipper that a table shows."""
HEADS: Final = (
    ("", "clipped"),
    ("", "rate"),
    ("threshold", "mean"),
    ("", "median"),
    ("", "last"),
    ("scale", "mean"),
    ("", "smallest"),
    ("first", "clipped"),
    ("not", "finite"),
)
CLIPPED_ANYHOW: Final = (
    "The norms are those of a training that {who} clipped. From the first step on that another "
    "clipper clips otherwise, the weights, and so the norms, would have been others."
)
NOT_CLIPPED: Final = (
    "The norms are those of a training that {who} only watched. With a clipper they would have "
    "been others from the first step on that it clips."
)
UNKNOWN: Final = (
    "The log does not tell whether {metric} was measured before clipping, nor what was clipped. "
    "With another clipper the norms would have been others from the first step on that it clips."
)


def as_text(comparison: Comparison) -> str:
    """A table of one run, with what it can and cannot say.

    Args:
        comparison: What was compared.
    """
    rows = [row for outcome in comparison.outcomes for row in _rows(outcome, comparison)]
    width = max(len(row[0]) for row in [("clipper",), *rows])
    columns = range(len(HEADS))
    widths = [max(len(row[i + 1]) for row in rows) for i in columns]
    widths = [max(w, *map(len, head)) for w, head in zip(widths, HEADS, strict=True)]
    lines = [
        click.style(f"{printable(comparison.plan.run)}", bold=True)
        + f": {printable(_extent(comparison))}",
        _line("", [head[0] for head in HEADS], width, widths),
        _line("clipper", [head[1] for head in HEADS], width, widths),
        *(_line(row[0], row[1:], width, widths) for row in rows),
        *map(printable, notes_of(comparison)),
    ]
    return "\n".join(lines)


def as_record(comparison: Comparison) -> dict[str, Any]:
    """The same as a JSON object; what is infinite or unknown is null."""
    return {
        "run": comparison.plan.run,
        "metric": comparison.plan.metric,
        "axis": comparison.axis,
        "clippers": [_outcome_record(outcome, comparison) for outcome in comparison.outcomes],
        "notes": list(notes_of(comparison)),
    }


def notes_of(comparison: Comparison) -> Iterator[str]:
    """What is to be known of the numbers."""
    plan, count = comparison.plan, len(comparison.norms)
    if plan.others:
        yield _others_text(plan.others)
    if comparison.left_out:
        why = "their norm or factor is no number"
        yield f"Records left out because {why}: {comparison.left_out:,}."
    if comparison.repeated:
        yield (
            f"{comparison.repeated:,} of {count:,} norms have the step of the one before. They are "
            "taken as one clipper's, in their order. If several models or clippers are mixed up "
            "here, choose one by what its records say: --where KEY=VALUE."
        )
    for outcome in comparison.outcomes:
        if outcome.ended is not None:
            yield (
                f"{outcome.name} would have ended the training at {comparison.axis} "
                f"{place_text(comparison.steps[outcome.ended])}, where the norm is not finite."
            )
    if plan.series is None:
        yield UNKNOWN.format(metric=plan.metric)
        return
    if plan.series.algo == "agc" and any(
        not one.recorded and one.groups and one.algo != "agc" for one in comparison.outcomes
    ):
        yield "The groups are AGC's, which leaves out biases and scales unless told otherwise."
    text = NOT_CLIPPED if plan.series.dry_run else CLIPPED_ANYHOW
    yield text.format(who=plan.series.algo or "a clipper")


def _others_text(others: Sequence[Series]) -> str:
    said = []
    for one in others:
        which = f"{one.scope}, dry run" if one.dry_run else one.scope
        norms = "norm" if one.total == 1 else "norms"
        said.append(f"{one.total:,} {norms} of {one.algo or 'a clipper'} ({which})")
    are = "is" if [one.total for one in others] == [1] else "are"
    return (
        f"The run also has {' and '.join(said)}, which {are} left out. Choose with --where "
        "KEY=VALUE."
    )


def _extent(comparison: Comparison) -> str:
    plan, count = comparison.plan, len(comparison.norms)
    which = f"{count:,} {'norm' if count == 1 else 'norms'} of {plan.metric}"
    if count and comparison.axis == "step":
        first, last = map(place_text, comparison.steps[[0, -1]])
        which += f", steps {first} to {last}"
    if plan.metric == SMARTCLIP and plan.series is not None and plan.series.scope != "global":
        which += f", groups {plan.series.scope}"
    return which


def _rows(outcome: Outcome, comparison: Comparison) -> Iterator[list[str]]:
    yield [printable(outcome.name), *_cells(outcome.tally.summary(comparison.steps))]
    summaries = {key: tally.summary(comparison.steps) for key, tally in outcome.groups.items()}
    ranked = sorted(summaries.items(), key=lambda item: -(item[1].clip_rate or 0.0))
    for key, summary in ranked[:MOST_GROUPS]:
        yield [f"  {printable('/'.join(key))}", *_cells(summary)]
    if len(ranked) > MOST_GROUPS:
        more = len(ranked) - MOST_GROUPS
        which = f"{more:,} more {'group' if more == 1 else 'groups'}"
        yield [f"  and {which} (--json)", *[""] * len(HEADS)]


def _cells(summary: TallySummary) -> list[str]:
    return [
        f"{summary.clipped:,}",
        "" if summary.clip_rate is None else f"{summary.clip_rate:.1%}",
        *(
            _number(value)
            for value in (
                summary.threshold_mean,
                summary.threshold_median,
                summary.threshold_last,
                summary.scale_mean,
                summary.scale_min,
            )
        ),
        "-" if summary.first_clipped is None else place_text(summary.first_clipped),
        f"{summary.nonfinite:,}",
    ]


def _line(name: str, cells: Sequence[str], width: int, widths: Sequence[int]) -> str:
    parts = [cell.rjust(w) for cell, w in zip(cells, widths, strict=True)]
    return "  ".join([name.ljust(width), *parts]).rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _outcome_record(outcome: Outcome, comparison: Comparison) -> dict[str, Any]:
    def of(tally: Tally) -> dict[str, Any]:
        return _plain(tally.summary(comparison.steps)._asdict())

    ended = None if outcome.ended is None else float(comparison.steps[outcome.ended])
    return {
        "clipper": outcome.name,
        "recorded": outcome.recorded,
        "algo": outcome.algo,
        "scope": outcome.scope,
        **of(outcome.tally),
        "ended": ended,
        "groups": [{"key": key, **of(tally)} for key, tally in outcome.groups.items()],
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
