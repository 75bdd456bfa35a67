"""The clippers of a command line, as what recorded norms are run through."""

from __future__ import annotations

import math

import numpy as np

from clipping.replay import Norms, Replay, Replayed
from telemetry.cli.replay.clipper_specs import Named
from telemetry.viewer.clips.candidates import Candidate, Decide, Decision, GroupDecision
from telemetry.viewer.clips.clippings import Key, RecordedClipping


def candidate_of(named: Named) -> Candidate:
    """A clipper that is to be run over recorded norms.

    Args:
        named: As it was asked for.

    Example:
        >>> from telemetry.cli.replay.clipper_specs import read_clippers
        >>> (named,) = read_clippers(["zscore:warmup_steps=0,min_history=1"])
        >>> decide = candidate_of(named).begin()
        >>> scales = [decide(RecordedClipping(n, {"grad_norm": 2.0 * n}, {})).scale for n in (1, 2)]
        >>> [round(scale, 6) for scale in scales]
        [1.0, 0.5]
    """
    clipper = named.clipper

    def begin() -> Decide:
        replay = Replay(clipper)
        by_unit = clipper.scope == "per_unit"

        def decide(clipping: RecordedClipping) -> Decision:
            made = replay.step(_norms_of(clipping))
            threshold = None if made.grouped else made.threshold
            groups = {} if clipper.scope == "global" else _groups_of(made, by_unit=by_unit)
            return Decision(threshold, made.scale, made.finite, groups)

        return decide

    return Candidate(
        named.name, clipper.algo, clipper.scope, tuple(clipper.scopes), clipper.weighs, begin
    )


def _norms_of(clipping: RecordedClipping) -> Norms:
    rows = clipping.groups.items()
    return Norms(
        clipping.measured["grad_norm"],
        clipping.step,
        {key: row["grad_norm"] for key, row in rows},
        {key: row["weight_norm"] for key, row in rows if "weight_norm" in row},
    )


def _groups_of(made: Replayed, *, by_unit: bool) -> dict[Key, GroupDecision]:
    starts = np.flatnonzero(np.diff(made.owner, prepend=-1))
    scales = np.minimum.reduceat(made.scales, starts) if len(starts) else made.scales
    limits = np.full(len(made.groups), math.nan) if by_unit else made.thresholds
    rows = zip(made.groups, limits.tolist(), scales.tolist(), strict=True)
    return {key: GroupDecision(limit, scale) for key, limit, scale in rows}
