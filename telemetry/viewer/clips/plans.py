"""Which recorded norms each clipper is run over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from telemetry.viewer.clips.candidates import Candidate
from telemetry.viewer.clips.clippings import (
    RecordedClipping,
    Series,
    count_metric,
    find_series,
    has_weights,
    read_clippings,
    read_metric,
)
from telemetry.viewer.frames.selection import match_metrics
from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.records import Records

SMARTCLIP: Final = "smartclip.grad_norm"
"""The metric of the norms that clippers report."""
USUAL: Final = ("training.grad_norm", "train.grad_norm", "grad_norm")
"""What else is taken for gradient norms."""


class Asked(NamedTuple):
    """Which norms are meant.

    Attributes:
        metric: Their name. By default those that clippers reported, else a gradient norm.
        where: Keys of the metadata, and what they must be.
    """

    metric: str | None = None
    where: tuple[tuple[str, str], ...] = ()


class Plan(NamedTuple):
    """Which norms of a run some clippers are run over.

    Attributes:
        run: The run's label.
        metric: The name of the norms.
        series: The clipper that reported them; None if they are any metric.
        column: That metric.
        total: How many there are.
        clippers: What is run over them.
        others: Other clippers of the run, whose norms none is run over.
    """

    run: str
    metric: str
    series: Series | None
    column: Column | None
    total: int
    clippers: Sequence[Candidate]
    others: tuple[Series, ...] = ()

    @property
    def by_group(self) -> bool:
        """Whether a clipper needs more than the norm of the whole model."""
        return any(one.needs_groups for one in self.clippers)


def make_plans(
    records: Records, runs: Iterable[str], clippers: Sequence[Candidate], asked: Asked
) -> tuple[list[Plan], dict[str, str]]:
    """Find the norms in each run.

    Args:
        records: The logs, with the view that `telemetry.viewer.clips.clippings.choose_records`
            makes.
        runs: The labels of their runs.
        clippers: What is to be run.
        asked: Which norms.

    Returns:
        What is to be run over what, and why some runs are left out.

    Raises:
        ValueError: There is no such metric, a run lacks what a clipper needs, or no run has norms.
    """
    columns = find_columns(records)
    chosen = None if asked.metric is None else _only(asked.metric, columns)
    reported: dict[str, list[Series]] = {}
    if chosen in (None, SMARTCLIP):
        for series in find_series(records):
            reported.setdefault(series.run, []).append(series)
    plans: list[Plan] = []
    without: dict[str, list[str]] = {}
    for run in runs:
        if run in reported:
            plans += _of_series(records, reported[run], clippers)
            continue
        found = _norms_of(records, run, columns, chosen)
        if len(found) == 1:
            plans.append(_of_metric(run, clippers, columns, found))
        else:
            without[run] = list(found)
    if not plans:
        raise ValueError(_no_norms(without, columns, chosen, asked))
    return plans, {run: _why_not(names, chosen, asked) for run, names in without.items()}


def read_plan(records: Records, plan: Plan) -> Iterator[RecordedClipping]:
    """The norms of a plan, in order."""
    if plan.series is not None:
        return read_clippings(records, plan.series, groups=plan.by_group)
    if plan.column is None:
        raise AssertionError(plan)
    return read_metric(records, plan.run, plan.column)


def _only(metric: str, columns: Mapping[str, Column]) -> str:
    found = match_metrics(metric, columns)
    if len(found) > 1:
        shown = ", ".join(found[:8])
        raise ValueError(f"The norms are one metric, and {metric!r} means several: {shown}.")
    return found[0]


def _of_series(
    records: Records, reported: Sequence[Series], clippers: Sequence[Candidate]
) -> Iterator[Plan]:
    of: dict[Series, list[Candidate]] = {}
    for one in clippers:
        of.setdefault(_series_for(records, reported, one), []).append(one)
    others = tuple(series for series in reported if series not in of)
    for series, those in of.items():
        yield Plan(series.run, SMARTCLIP, series, None, series.total, those, others)


def _series_for(records: Records, reported: Sequence[Series], candidate: Candidate) -> Series:
    """The first that has what a clipper needs; those that clipped come first."""
    if not candidate.needs_groups:
        return reported[0]
    scope, weighs = candidate.scope, candidate.weighs
    able = [one for one in reported if not weighs or has_weights(records, one)]
    for series in able:
        if series.scope == scope:
            return series
    norms = "the gradient and weight norms" if weighs else "the gradient norms"
    there = ", ".join(f"{one.algo} with scope {one.scope}" for one in reported)
    mend = " or ".join(f"scope={one.scope}" for one in able if one.scope in candidate.scopes)
    recorder = "AGC" if weighs else "any clipper"
    raise ValueError(
        f"{reported[0].run}: {candidate.name} needs {norms} of groups with scope {scope}, and the "
        f"run was recorded by {there}. "
        + (f"Write {mend}" if mend else f"{recorder} with scope {scope} records them")
        + ("." if mend else ", be it with dry_run=True.")
    )


def _norms_of(
    records: Records, run: str, columns: Mapping[str, Column], chosen: str | None
) -> dict[str, int]:
    """How many values a run has of its norms; of several metrics, where none is the usual one."""
    names = [chosen] if chosen else _norms_in(columns)
    counts = {name: count_metric(records, run, columns[name]) for name in names}
    found = {name: count for name, count in counts.items() if count}
    usual = ({name: count} for name, count in found.items() if name in USUAL)
    return next(usual, found)


def _of_metric(
    run: str,
    clippers: Sequence[Candidate],
    columns: Mapping[str, Column],
    found: Mapping[str, int],
) -> Plan:
    ((name, count),) = found.items()
    plan = Plan(run, name, None, columns[name], count, clippers)
    _check_global(plan)
    return plan


def _norms_in(columns: Mapping[str, Column]) -> list[str]:
    known = [name for name in USUAL if name in columns]
    others = (name for name in columns if name.endswith(".grad_norm"))
    return [*known, *(name for name in others if name not in (*known, SMARTCLIP))]


def _check_global(plan: Plan) -> None:
    for one in plan.clippers:
        if one.needs_groups:
            what = "weight norms" if one.weighs else "the norms of groups"
            raise ValueError(
                f"{plan.run}: {one.name} needs {what}, and {plan.metric} is the norm of a whole "
                "model. A clipper records them with the events smartclip.clip.**, be it with "
                "dry_run=True."
            )


def _why_not(names: Sequence[str], chosen: str | None, asked: Asked) -> str:
    """Why a run is left out, by the names of its norms."""
    if names:
        return f"it has {_several(names)}"
    if asked.where:
        return f"no record with {_said(asked)} has {chosen or 'a gradient norm'}"
    return f"it has no {chosen or 'gradient norms'}"


def _no_norms(
    runs: Mapping[str, Sequence[str]],
    columns: Mapping[str, Column],
    chosen: str | None,
    asked: Asked,
) -> str:
    """The same of all runs, where none is left."""
    for run, names in runs.items():
        if names:
            return f"{run} has {_several(names)}."
    if asked.where:
        return f"No record with {_said(asked)} has {chosen or 'a gradient norm'}."
    if chosen:
        return f"No run has values of {chosen}."
    norms = [name for name in columns if name.endswith("norm")]
    named = f" Name one with --metric: {', '.join(norms[:8])}." if norms else ""
    return (
        f"There are no gradient norms in {', '.join(runs) or 'these files'}: clippers "
        f"report {SMARTCLIP}, training loops training.grad_norm.{named}"
    )


def _several(names: Sequence[str]) -> str:
    return f"several gradient norms. Name one with --metric: {', '.join(names[:8])}"


def _said(asked: Asked) -> str:
    return " and ".join(f"{key}={value}" for key, value in asked.where)
