"""Clippers run over the gradient norms of one run, and what the run's own clipper did."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from telemetry.viewer.clips.candidates import Candidate, Decision, GroupDecision
from telemetry.viewer.clips.clippings import Key, RecordedClipping, Series
from telemetry.viewer.clips.plans import Plan
from telemetry.viewer.clips.tally import Tally


class Outcome(NamedTuple):
    """What a clipper did, or would have done.

    Attributes:
        name: What it is called.
        algo: Its algorithm.
        scope: What forms a group.
        recorded: Whether it did so.
        tally: Step by step.
        grouped: Whether each of several groups has a threshold of its own, and the model none.
        groups: Of each group, unless there is one of the whole model.
        ended: At which of the steps, counted from 0, it would have ended the training.
    """

    name: str
    algo: str
    scope: str
    recorded: bool
    tally: Tally
    grouped: bool
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
    plan: Plan, clippings: Iterable[RecordedClipping], progress: Callable[[], object]
) -> Comparison:
    """Run clippers over recorded norms, side by side.

    Args:
        plan: What is run.
        clippings: The norms, with those of groups if a clipper needs them.
        progress: Called after each.

    Raises:
        ValueError: What was recorded is not what a clipper needs.
    """
    recorded = None if plan.series is None else _Recorded(plan.series)
    runs = [_Run(one, plan.run) for one in plan.clippers]
    sides: list[_Recorded | _Run] = [recorded, *runs] if recorded else [*runs]
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
        for side in sides:
            side.add(len(norms), clipping)
        steps.append(math.nan if clipping.step is None else clipping.step)
        norms.append(norm)
    axis, numbers = _axis(np.array(steps))
    repeated = sum(map(operator.eq, steps, steps[1:]))
    outcomes = [side.finish() for side in sides]
    return Comparison(plan, axis, numbers, np.array(norms), outcomes, repeated, left_out)


class _Side:
    """The decisions of one clipper."""

    def __init__(self, name: str, algo: str, scope: str, *, recorded: bool) -> None:
        self._who = (name, algo, scope, recorded)
        self._tally = Tally()
        self._groups: dict[Key, Tally] = {}
        self._grouped = False
        self._ended: int | None = None

    def finish(self) -> Outcome:
        """All of them. Where there came to be several groups, no threshold was the model's."""
        if self._grouped:
            self._tally.forget_thresholds()
        return Outcome(*self._who, self._tally, self._grouped, self._groups, self._ended)

    def _take(self, place: int, decision: Decision) -> None:
        self._grouped |= decision.threshold is None
        limit = math.nan if decision.threshold is None else decision.threshold
        self._tally.add(place, limit, decision.scale, finite=decision.finite)
        for key, (threshold, scale) in decision.groups.items():
            tally = self._groups.setdefault(key, Tally())
            tally.add(place, threshold, scale, finite=decision.finite)


class _Recorded(_Side):
    """What the run's own clipper reported."""

    def __init__(self, series: Series) -> None:
        watched = ", dry run" if series.dry_run else ""
        name = f"recorded: {series.algo}{watched}"
        super().__init__(name, series.algo, series.scope, recorded=True)
        self._whole = series.scope == "global"

    def add(self, place: int, clipping: RecordedClipping) -> None:
        measured = clipping.measured
        finite = math.isfinite(measured["grad_norm"])
        groups = {} if self._whole else clipping.groups
        of_groups = {
            key: GroupDecision(_limit(row), float(np.min(row["scale"])))
            for key, row in groups.items()
        }
        is_known = self._whole or "threshold" in measured or "target" in measured
        limit = _limit(measured) if is_known else None
        self._take(place, Decision(limit, measured["scale"], finite, of_groups))


class _Run(_Side):
    """A clipper that is run again."""

    def __init__(self, candidate: Candidate, run: str) -> None:
        super().__init__(candidate.name, candidate.algo, candidate.scope, recorded=False)
        self._whose = f"{run}: {candidate.name}"
        self._decide = candidate.begin()

    def add(self, place: int, clipping: RecordedClipping) -> None:
        if self._ended is not None:
            return
        try:
            self._take(place, self._decide(clipping))
        except FloatingPointError:  # of on_nonfinite=raise
            self._ended = place
        except ValueError as error:
            raise ValueError(f"{self._whose}: {error}") from error
        except MemoryError as error:
            raise ValueError(
                f"{self._whose}: its history does not fit into memory ({error}). Make window_size "
                "smaller."
            ) from error


def _check_complete(plan: Plan, clipping: RecordedClipping) -> None:
    there, told = len(clipping.groups), clipping.measured.get("groups")
    if told != there or not all(map(_is_whole, clipping.groups.values())):
        step = "?" if clipping.step is None else f"{clipping.step:,.16g}"
        raise ValueError(
            f"{plan.run}: step {step} has the norms of {there} of {told} groups. A clipper of "
            "groups needs all of them: record smartclip.clip.** without every=, sample= or where=."
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
