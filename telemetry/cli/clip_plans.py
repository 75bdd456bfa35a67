"""Which recorded norms each clipper is run over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import click

from telemetry.cli.clipper_specs import Named
from telemetry.cli.event_choice import is_said
from telemetry.cli.printable import printable
from telemetry.viewer.clips.clippings import (
    Clipping,
    Series,
    choose_records,
    count_metric,
    find_series,
    has_weights,
    read_clippings,
    read_metric,
)
from telemetry.viewer.frames.selection import match_metrics
from telemetry.viewer.logs.columns import Column, find_columns
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs

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
    """

    run: str
    metric: str
    series: Series | None
    column: Column | None
    total: int
    clippers: Sequence[Named]

    @property
    def by_group(self) -> bool:
        """Whether a clipper needs more than the norm of the whole model."""
        return any(needs_groups(named) for named in self.clippers)


def make_plans(records: Records, clippers: Sequence[Named], asked: Asked) -> list[Plan]:
    """Find the norms in each run.

    Args:
        records: The logs.
        clippers: What is to be run.
        asked: Which norms.

    Raises:
        ValueError: There is no such metric.
        click.ClickException: A run lacks what a clipper needs, or no run has norms.
    """
    runs, columns = find_runs(records), find_columns(records)
    choose_records(records, asked.where, is_said)
    chosen = None if asked.metric is None else _only(asked.metric, columns)
    reported: dict[str, list[Series]] = {}
    if chosen in (None, SMARTCLIP):
        for series in find_series(records):
            reported.setdefault(series.run, []).append(series)
    plans: list[Plan] = []
    without = []
    for run in runs:
        if run in reported:
            plans += _of_series(records, reported[run], clippers)
            continue
        plan = _of_metric(records, run, clippers, columns, chosen)
        if plan is None:
            without.append(run)
        else:
            plans.append(plan)
    if not plans:
        raise click.ClickException(_no_norms(runs, columns, chosen, asked))
    for run in without:
        said = f"{run}: left out, it has no {chosen or 'gradient norms'}."
        click.echo(printable(said), err=True)
    return plans


def read_plan(records: Records, plan: Plan) -> Iterator[Clipping]:
    """The norms of a plan, in order."""
    if plan.series is not None:
        return read_clippings(records, plan.series, groups=plan.by_group)
    if plan.column is None:
        raise AssertionError(plan)
    return read_metric(records, plan.run, plan.column)


def needs_groups(named: Named) -> bool:
    """Whether the norm of the whole model is not enough for a clipper."""
    return named.clipper.scope != "global" or named.clipper.weighs


def _only(metric: str, columns: Mapping[str, Column]) -> str:
    found = match_metrics(metric, columns)
    if len(found) > 1:
        shown = ", ".join(found[:8])
        raise ValueError(f"The norms are one metric, and {metric!r} means several: {shown}.")
    return found[0]


def _of_series(
    records: Records, reported: Sequence[Series], clippers: Sequence[Named]
) -> Iterator[Plan]:
    of: dict[Series, list[Named]] = {}
    for named in clippers:
        of.setdefault(_series_for(records, reported, named), []).append(named)
    for series, those in of.items():
        yield Plan(series.run, SMARTCLIP, series, None, series.total, those)


def _series_for(records: Records, reported: Sequence[Series], named: Named) -> Series:
    """The first that has what a clipper needs; those that clipped come first."""
    if not needs_groups(named):
        return reported[0]
    scope, weighs = named.clipper.scope, named.clipper.weighs
    able = [one for one in reported if not weighs or has_weights(records, one)]
    for series in able:
        if series.scope == scope:
            return series
    norms = "the gradient and weight norms" if weighs else "the gradient norms"
    there = printable(", ".join(f"{one.algo} with scope {one.scope}" for one in reported))
    mend = " or ".join(f"scope={one.scope}" for one in able if one.scope in named.clipper.scopes)
    recorder = "AGC" if weighs else "any clipper"
    raise click.ClickException(
        f"{printable(reported[0].run)}: {named.name} needs {norms} of groups with scope {scope}, "
        f"and the run was recorded by {there}. "
        + (f"Write {mend}" if mend else f"{recorder} with scope {scope} records them")
        + ("." if mend else ", be it with dry_run=True.")
    )


def _of_metric(
    records: Records,
    run: str,
    clippers: Sequence[Named],
    columns: Mapping[str, Column],
    chosen: str | None,
) -> Plan | None:
    names = [chosen] if chosen else _norms_in(columns)
    counts = {name: count_metric(records, run, columns[name]) for name in names}
    found = [name for name in names if counts[name]]
    if not found or (found[0] not in (chosen, *USUAL) and len(found) > 1):
        return None  # of several that are called otherwise, which is meant has to be said
    plan = Plan(run, found[0], None, columns[found[0]], counts[found[0]], clippers)
    _check_global(plan)
    return plan


def _norms_in(columns: Mapping[str, Column]) -> list[str]:
    known = [name for name in USUAL if name in columns]
    others = (name for name in columns if name.endswith(".grad_norm"))
    return [*known, *(name for name in others if name not in (*known, SMARTCLIP))]


def _check_global(plan: Plan) -> None:
    for named in plan.clippers:
        if needs_groups(named):
            what = "weight norms" if named.clipper.weighs else "the norms of groups"
            raise click.ClickException(
                f"{printable(plan.run)}: {named.name} needs {what}, and {printable(plan.metric)} "
                "is the norm of a whole model. A clipper records them with the events "
                "smartclip.clip.**, be it with dry_run=True."
            )


def _no_norms(
    runs: Sequence[str], columns: Mapping[str, Column], chosen: str | None, asked: Asked
) -> str:
    if asked.where:
        said = " and ".join(f"{key}={value}" for key, value in asked.where)
        return f"No record with {said} has {chosen or 'a gradient norm'}."
    if chosen:
        return f"No run has values of {chosen}."
    norms = [name for name in columns if name.endswith("norm")]
    named = f" Name one with --metric: {printable(', '.join(norms[:8]))}." if norms else ""
    return (
        f"There are no gradient norms in {printable(', '.join(runs)) or 'these files'}: clippers "
        f"report {SMARTCLIP}, training loops training.grad_norm.{named}"
    )
