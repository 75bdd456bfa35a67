"""Clippers run over the gradient norms of one run, and what the run's own clipper did."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import click
import numpy as np
from numpy.typing import NDArray

from telemetry.cli.clip_plans import Plan
from telemetry.cli.clipper_specs import Named
from telemetry.cli.printable import place_text, printable
from telemetry.viewer.clips.clippings import Clipping, Key, Series
from telemetry.viewer.clips.tally import Tally

if TYPE_CHECKING:
    from clipping.replay import Norms, Replay


class Outcome(NamedTuple):
    """What a clipper did, or would have done.

    Attributes:
        name: What it is called.
        algo: Its algorithm.
        scope: What forms a group.
        recorded: Whether it did so.
        tally: Step by step.
        groups: Of each group, unless there is one of the whole model.
        ended: At which of the steps, counted from 0, it would have ended the training.
    """

    name: str
    algo: str
    scope: str
    recorded: bool
    tally: Tally
    groups: dict[Key, Tally]
    ended: int | None


class Comparison(NamedTuple):
    """What clippers would have done in a run.

    Attributes:
        plan: What was run over what.
        axis: What the steps are: ``"step"``, or ``"clipping"`` where they are merely counted.
        steps: Their numbers.
        norms: The gradient norm of each.
        outcomes: The recorded clipper, if there was one, and the others.
        repeated: How many have the step of the one before.
        left_out: How many say no norm.
    """

    plan: Plan
    axis: str
    steps: NDArray[np.float64]
    norms: NDArray[np.float64]
    outcomes: list[Outcome]
    repeated: int
    left_out: int


def compare(
    plan: Plan, clippings: Iterable[Clipping], progress: Callable[[], object]
) -> Comparison:
    """Run clippers over recorded norms, side by side.

    Args:
        plan: What is run.
        clippings: The norms, with those of groups if a clipper needs them.
        progress: Called after each.

    Raises:
        click.ClickException: What was recorded is not what a clipper needs.
    """
    recorded = None if plan.series is None else _Recorded(plan.series)
    runners = [_Runner(named) for named in plan.clippers]
    steps, norms = array("d"), array("d")
    left_out = 0
    for clipping in clippings:
        progress()
        norm = clipping.measured.get("grad_norm")
        if not _is_norm(norm) or (recorded and not _is_scale(clipping.measured, norm)):
            left_out += 1
            continue
        if plan.by_group:
            _check_complete(plan, clipping)
        place = len(norms)
        steps.append(math.nan if clipping.step is None else clipping.step)
        norms.append(norm)
        if recorded is not None:
            recorded.add(place, clipping)
        measured = _norms_of(clipping)
        for runner in runners:
            runner.add(place, measured, plan)
    axis, numbers = _axis(np.array(steps))
    outcomes = [one.outcome for one in (recorded, *runners) if one is not None]
    repeated = sum(map(operator.eq, steps, steps[1:]))
    return Comparison(plan, axis, numbers, np.array(norms), outcomes, repeated, left_out)


class _Recorded:
    """What the run's own clipper reported."""

    def __init__(self, series: Series) -> None:
        watched = ", dry run" if series.dry_run else ""
        name = f"recorded: {series.algo}{watched}"
        self.outcome = _begun(name, series.algo, series.scope, recorded=True)

    def add(self, place: int, clipping: Clipping) -> None:
        measured = clipping.measured
        finite = math.isfinite(measured["grad_norm"])
        self.outcome.tally.add(place, _limit(measured), measured["scale"], finite=finite)
        if self.outcome.scope != "global":
            for key, row in clipping.groups.items():
                tally = self.outcome.groups.setdefault(key, Tally())
                tally.add(place, _limit(row), float(np.min(row["scale"])), finite=finite)


class _Runner:
    """A clipper that is run again."""

    def __init__(self, named: Named) -> None:
        from clipping.replay import Replay  # noqa: PLC0415 -- commands that need none start without

        self._replay: Replay = Replay(named.clipper)
        algo, scope = named.clipper.algo, named.clipper.scope
        self.outcome = _begun(named.name, algo, scope, recorded=False)

    def add(self, place: int, measured: Norms, plan: Plan) -> None:
        from clipping.replay import ReplayError  # noqa: PLC0415 -- as above

        if self.outcome.ended is not None:
            return
        try:
            made = self._replay.step(measured)
        except ReplayError as error:
            raise click.ClickException(
                f"{printable(plan.run)}: {self.outcome.name}: {error}"
            ) from error
        except MemoryError as error:
            raise click.ClickException(
                f"{printable(plan.run)}: {self.outcome.name}: its history does not fit into "
                f"memory ({error}). Make window_size smaller."
            ) from error
        except FloatingPointError:  # of on_nonfinite=raise
            self.outcome = self.outcome._replace(ended=place)
            return
        self.outcome.tally.add(place, made.threshold, made.scale, finite=made.finite)
        if self.outcome.scope == "global":
            return
        single = len(made.groups) == len(made.owner)
        starts = np.flatnonzero(np.diff(made.owner, prepend=-1))
        scales = np.minimum.reduceat(made.scales, starts) if len(starts) else made.scales
        limits = made.thresholds if single else np.full(len(made.groups), math.nan)
        for key, limit, scale in zip(made.groups, limits, scales, strict=True):
            tally = self.outcome.groups.setdefault(key, Tally())
            tally.add(place, limit, scale, finite=made.finite)


def _begun(name: str, algo: str, scope: str, *, recorded: bool) -> Outcome:
    return Outcome(name, algo, scope, recorded, Tally(), {}, None)


def _norms_of(clipping: Clipping) -> Norms:
    from clipping.replay import Norms  # noqa: PLC0415 -- as above

    rows = clipping.groups.items()
    return Norms(
        clipping.measured["grad_norm"],
        clipping.step,
        {key: row["grad_norm"] for key, row in rows},
        {key: row["weight_norm"] for key, row in rows if "weight_norm" in row},
    )


def _check_complete(plan: Plan, clipping: Clipping) -> None:
    there, told = len(clipping.groups), clipping.measured.get("groups")
    if told != there or not all(map(_is_whole, clipping.groups.values())):
        step = "?" if clipping.step is None else place_text(clipping.step)
        raise click.ClickException(
            f"{printable(plan.run)}: step {step} has the norms of {there} of {told} groups. A "
            "clipper of groups needs all of them: record smartclip.clip.** without every=, "
            "sample= or where=."
        )


def _limit(row: Mapping[str, Any]) -> float:
    limit = row.get("threshold", row.get("target", math.nan))
    return float(limit) if _is_number(limit) else math.nan


def _axis(steps: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    if len(steps) and not np.isnan(steps).any() and (steps[1:] > steps[:-1]).all():
        return "step", steps
    return "clipping", np.arange(1.0, len(steps) + 1)


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether an event of a group says what it should: numbers, or one for each unit."""
    values = [row.get("grad_norm"), row.get("scale"), row.get("weight_norm", 0.0)]
    return all(
        all(map(_is_number, value)) and value if isinstance(value, list) else _is_number(value)
        for value in values
    )


def _is_norm(value: object) -> TypeGuard[float]:
    return _is_number(value) and not value < 0


def _is_scale(measured: Mapping[str, Any], norm: float) -> bool:
    """Whether a clipping says by which factor, which is unknown of a norm that is not finite."""
    scale = measured.get("scale")
    return _is_number(scale) and (math.isfinite(scale) or not math.isfinite(norm))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
