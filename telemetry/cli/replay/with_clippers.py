"""``telemetry replay --clipper``: run gradient clippers over recorded norms, and compare them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final

import click

from telemetry.cli.options.event_choice import is_said, parse_condition
from telemetry.cli.output.printable import print_json, printable
from telemetry.cli.output.progress import Progress
from telemetry.cli.plot.drawing import reading, told
from telemetry.cli.replay.clip_table import as_record, as_text
from telemetry.cli.replay.clipper_specs import read_clippers
from telemetry.extras import import_extra
from telemetry.viewer.charts.pictures import check_picture, save_plot
from telemetry.viewer.clips.candidates import Candidate
from telemetry.viewer.clips.clippings import choose_records
from telemetry.viewer.clips.comparison import Comparison, compare
from telemetry.viewer.clips.picture import Line, Panel, check_runs, draw_comparison
from telemetry.viewer.clips.plans import Asked, Plan, make_plans, read_plan
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import find_logs

FEATURE: Final = "telemetry replay --clipper"


def run(
    paths: Sequence[Path],
    clippers: Sequence[str],
    *,
    metric: str | None = None,
    where: Sequence[str] = (),
    out: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run clippers over the gradient norms of some logs, and print what each would have done.

    Args:
        paths: Files, patterns or directories. Each run is by itself.
        clippers: Each as ``NAME:KEY=VALUE,...``; see `telemetry.cli.replay.clipper_specs`.
        metric: The norms. By default those that clippers reported, else ``training.grad_norm``.
        where: Each as ``KEY=VALUE``: only norms whose metadata say so.
        out: Where a picture goes, if one is wanted.
        as_json: Whether a JSON list is printed.

    Raises:
        click.ClickException: A clipper, an option, a file or a metric is not there, or what was
            recorded is not what a clipper needs.
    """
    named = read_clippers(clippers)
    asked = Asked(metric, tuple(map(parse_condition, where)))
    for one in named:
        for reason in one.idle:
            click.echo(f"{one.name}: {reason}.", err=True)
    from telemetry.cli.replay.clip_candidates import candidate_of  # noqa: PLC0415 -- of a checked package

    candidates = [candidate_of(one) for one in named]
    with told():
        for module in ("duckdb", *(["matplotlib.figure"] if out else [])):
            import_extra(module, extra="viewer", feature=FEATURE)
        picture = None if out is None else check_picture(out)
        comparisons = _compared(paths, candidates, asked, picture)
        _print(comparisons, as_json=as_json)
        if picture is not None:
            _draw(comparisons, picture)
    if picture is not None:
        click.echo(f"Picture: {picture}", err=as_json)


def _compared(
    paths: Sequence[Path], clippers: Sequence[Candidate], asked: Asked, picture: Path | None
) -> list[Comparison]:
    with reading(find_logs(paths), follow=False) as records:
        plans = _plans(records, clippers, asked)
        if picture is not None:
            check_runs(len(plans))
        total, done = sum(plan.total for plan in plans), count(1)
        progress = Progress(shown=sys.stderr.isatty(), what="norms")

        def advance() -> None:
            progress(next(done), lambda: f"of {total:,}")

        try:
            return [compare(plan, read_plan(records, plan), advance) for plan in plans]
        finally:
            progress.end()


def _plans(records: Records, clippers: Sequence[Candidate], asked: Asked) -> list[Plan]:
    runs = find_runs(records)
    choose_records(records, asked.where, is_said)
    plans, without = make_plans(records, runs, clippers, asked)
    for run, reason in without.items():
        click.echo(printable(f"{run}: left out, {reason}."), err=True)
    return plans


def _draw(comparisons: Sequence[Comparison], picture: Path) -> None:
    panels = [
        Panel(
            printable(one.plan.run),
            one.axis,
            one.steps,
            one.norms,
            [
                Line(
                    printable(made.name),
                    made.tally.thresholds,
                    made.tally.clipped,
                    made.recorded,
                    made.grouped,
                )
                for made in one.outcomes
            ],
        )
        for one in comparisons
    ]
    save_plot(draw_comparison(panels), picture)


def _print(comparisons: Sequence[Comparison], *, as_json: bool) -> None:
    if as_json:
        print_json([as_record(comparison) for comparison in comparisons])
    else:
        click.echo("\n\n".join(map(as_text, comparisons)))
