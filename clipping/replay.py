"""Clippers run again over gradient norms that were recorded, without the gradients.

A clipper decides by norms alone, so what it would have done in a step follows from the norms of
that step and of those before it. What it cannot tell is how the training would have gone on: the
recorded norms are those of a training that was clipped as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipping.clipper import Clipper
from clipping.host import HOST
from clipping.nonfinite import refusal
from clipping.records import Decision, Key, Measured, State

Floats = NDArray[np.float64]
Placed = tuple[NDArray[np.intp], NDArray[np.intp]]

GLOBAL: Final[Key] = ("global",)
EXACT: Final = 2**53
"""Up to which a float has room for every integer."""
LONGEST: Final = 60
"""Characters of a value in an error."""
NOTHING: Final[Mapping[Key, Any]] = MappingProxyType({})


class ReplayError(ValueError):
    """What was recorded is not what a clipper needs to know."""


class Norms(NamedTuple):
    """What was measured before one optimizer step.

    Attributes:
        grad_norm: The L2 norm of the whole model's gradient, before clipping.
        step: The number of the step, if it is known.
        groups: The gradient norm of each group that had a gradient; with scope ``"per_unit"`` a
            list, one number for each unit.
        weights: The weight norms of the same groups, for AGC.
    """

    grad_norm: float
    step: float | None = None
    groups: Mapping[Key, Any] = NOTHING
    weights: Mapping[Key, Any] = NOTHING


class Replayed(NamedTuple):
    """What a clipper would have done in one step.

    Attributes:
        step: The number of the step, if it is known.
        grad_norm: The norm of the whole model's gradient, before clipping.
        threshold: What the norm was held against (AGC's target), infinity before there is one;
            NaN where it is not known, as AGC's of weights that are NaN, and where it is `grouped`.
        grouped: Whether each group has a threshold of its own, and the model none: from the step on
            in which there are several groups, and with scope ``"per_unit"``.
        scale: The smallest factor; 0 where gradients are zeroed for not being finite.
        outcome: ``"applied"``, ``"unclipped"`` or ``"skipped"``, as the stop event has it.
        finite: Whether all norms are finite.
        groups: The groups that had a gradient.
        groups_clipped: How many of them have a factor below 1.
        owner: The index in ``groups`` of each row, of shape [rows]. A row is a group, or with
            scope ``"per_unit"`` a unit of one.
        thresholds: Of each row.
        scales: Of each row.
    """

    step: float | None
    grad_norm: float
    threshold: float
    grouped: bool
    scale: float
    outcome: str
    finite: bool
    groups: tuple[Key, ...]
    groups_clipped: int
    owner: NDArray[np.intp]
    thresholds: Floats
    scales: Floats


def replay(clipper: Clipper, recorded: Iterable[Norms]) -> Iterator[Replayed]:
    """Run a clipper over recorded norms, one optimizer step after another.

    The decisions are those that the clipper makes of gradients that have these norms, computed in
    float64. The clipper itself learns nothing: it gives the options, and each replay begins anew.

    Args:
        clipper: With scope ``"global"`` AutoClip and ZScoreClip take the ``grad_norm``, other
            scopes the groups. AGC takes the groups and their weight norms with every scope.
        recorded: The norms, in the order of the steps. A group that was not there before begins
            its history then; one that is missing had no gradient.

    Yields:
        What the clipper would have done in each step.

    Raises:
        ReplayError: A step has no groups or weight norms, and the clipper needs them; or a norm is
            no number of 0 or more.
        FloatingPointError: The clipper's ``on_nonfinite`` is ``"raise"`` and a norm is NaN or
            infinite: the training would have ended there.

    Example:
        >>> import clipping
        >>> clipper = clipping.AutoClip(mode="percentile", percentile=50, history="window",
        ...                             warmup_steps=0, min_history=1)
        >>> for one in replay(clipper, [Norms(1.0), Norms(2.0), Norms(9.0)]):
        ...     print(one.threshold, round(one.scale, 6), one.outcome)
        1.0 1.0 unclipped
        1.5 0.75 applied
        2.0 0.222222 applied
    """
    return map(Replay(clipper).step, recorded)


class Replay:
    """A `replay` that is given its steps one by one.

    Args:
        clipper: See `replay`.

    Example:
        >>> import clipping
        >>> Replay(clipping.AutoClip(mode="percentile")).step(Norms(2.0)).threshold
        2.0
    """

    def __init__(self, clipper: Clipper) -> None:
        self._clipper = clipper
        self._whole = clipper.scope == "global" and not clipper.weighs
        self._steps = 0
        self._rows: dict[Key, slice] = {}
        self._state: State | None = None
        self._last: tuple[tuple[Key, ...], Placed] | None = None

    def step(self, recorded: Norms) -> Replayed:
        """What the clipper would have done in the next step.

        Raises:
            ReplayError: See `replay`.
            FloatingPointError: Likewise.
        """
        recorded = self._checked(recorded)
        groups = {GLOBAL: recorded.grad_norm} if self._whole else recorded.groups
        self._make_room({key: np.size(norm) for key, norm in groups.items()}, recorded.step)
        self._steps += 1
        if self._state is None:
            return self._nothing_done(recorded)
        measured = self._measured(groups, recorded.weights)
        hidden = not self._whole and _hides_nonfinite(recorded.grad_norm, measured.norms)
        self._refuse(recorded, measured.norms, hidden)
        decision, self._state = self._clipper.update(HOST, self._state, measured)
        if hidden and self._clipper.policy == "skip":
            decision = decision._replace(
                scale=np.zeros_like(decision.scale), zeroed=np.ones_like(decision.zeroed)
            )
        return self._replayed(recorded, tuple(groups), decision, hidden)

    def _checked(self, recorded: Norms) -> Norms:
        """The same with arrays of float64, as far as it is used."""
        norm = float(_floats(recorded.grad_norm, "norm of the model", recorded.step))
        if self._whole:
            return recorded._replace(grad_norm=norm)
        self._check_recorded(recorded)
        groups, weights = self._rows_of(recorded, "groups"), NOTHING
        if self._clipper.weighs:
            weights = self._rows_of(recorded, "weights")
            for key, held in groups.items():
                if np.size(weights[key]) != np.size(held):
                    raise ReplayError(
                        f"The group {key!r} has {np.size(held)} gradient norms and "
                        f"{np.size(weights[key])} weight norms in step {_shown(recorded.step)}."
                    )
        return recorded._replace(grad_norm=norm, groups=groups, weights=weights)

    def _rows_of(self, recorded: Norms, field: str) -> dict[Key, Floats]:
        what = "gradient norm" if field == "groups" else "weight norm"
        by_unit = self._clipper.scope == "per_unit"
        return {
            key: _floats(value, f"{what} of {key!r}", recorded.step, by_unit=by_unit)
            for key, value in getattr(recorded, field).items()
        }

    def _check_recorded(self, recorded: Norms) -> None:
        name, step = type(self._clipper).__name__, _shown(recorded.step)
        if not self._clipper.weighs:
            if not recorded.groups:
                raise ReplayError(
                    f"{name} with scope={self._clipper.scope!r} needs the norm of each group, and "
                    f"step {step} has that of the whole model only. They are recorded where a "
                    "clipper of the same scope clips, be it with dry_run=True."
                )
            return
        missing = [key for key in recorded.groups if key not in recorded.weights]
        if missing or (self._clipper.scope == "global" and GLOBAL not in recorded.groups):
            raise ReplayError(
                f"{name} holds gradients against weights, and step {step} has no weight norm of "
                f"{missing or [GLOBAL]!r}. They are recorded where AGC clips with the same scope, "
                "be it with dry_run=True."
            )

    def _make_room(self, lengths: Mapping[Key, int], step: float | None) -> None:
        """Give groups that were not there before a history; it begins empty."""
        count = sum(rows.stop - rows.start for rows in self._rows.values())
        new = {}
        for key, length in lengths.items():
            rows = self._rows.get(key)
            if rows is None:
                new[key] = slice(count, count := count + length)
            elif rows.stop - rows.start != length:
                raise ReplayError(
                    f"The group {key!r} has {length} units in step {_shown(step)} and had "
                    f"{rows.stop - rows.start} before. One replay is of one model."
                )
        if not new:
            return
        known = self._state
        first = min(rows.start for rows in new.values())
        self._rows |= new
        if known is None:
            self._state = self._clipper.init(HOST, count)._replace(steps=np.array(self._steps))
        else:
            columns = self._clipper.describe(HOST, known)
            blank = self._clipper.init(HOST, count - first)
            more = self._clipper.describe(HOST, blank)
            both = {name: [*column, *more[name]] for name, column in columns.items()}
            self._state = self._clipper.restore(HOST, count, both, self._steps)

    def _measured(self, groups: Mapping[Key, Any], weights: Mapping[Key, Any]) -> Measured:
        count = next(reversed(self._rows.values())).stop
        norms, present = np.zeros(count), np.zeros(count, np.bool_)
        held = np.zeros(count) if self._clipper.weighs else None
        for key, norm in groups.items():
            rows = self._rows[key]
            norms[rows], present[rows] = norm, True
            if held is not None:
                held[rows] = weights[key]
        return Measured(norms, held, None if present.all() else present)

    def _refuse(self, recorded: Norms, norms: Floats, hidden: bool) -> None:
        """Raise as the clipper does, if that is its policy."""
        if self._clipper.policy != "raise" or self._clipper.dry_run:
            return
        bad = [key for key, rows in self._rows.items() if not np.isfinite(norms[rows]).all()]
        if bad or hidden:
            raise refusal(bad, len(self._rows), recorded.grad_norm)

    def _replayed(
        self, recorded: Norms, groups: tuple[Key, ...], decision: Decision, hidden: bool
    ) -> Replayed:
        if not groups:
            return self._nothing_done(recorded)
        index, owner = self._placed(groups)
        (limit, *_) = decision.limits.values()
        scales, thresholds = decision.scale[index], limit[index]
        below = scales < 1
        outcome = "applied" if below.any() else "unclipped"
        return Replayed(
            step=recorded.step,
            grad_norm=recorded.grad_norm,
            threshold=np.nan if self._is_grouped else float(limit[0]),
            grouped=self._is_grouped,
            scale=float(scales.min()),
            outcome="skipped" if decision.zeroed[index].all() else outcome,
            finite=not hidden and not decision.nonfinite[index].any(),
            groups=groups,
            groups_clipped=len(set(owner[below].tolist())),
            owner=owner,
            thresholds=thresholds,
            scales=scales,
        )

    @property
    def _is_grouped(self) -> bool:
        """Whether no threshold is the model's, as far as is known by now."""
        return len(self._rows) > 1 or self._clipper.scope == "per_unit"

    def _nothing_done(self, recorded: Norms) -> Replayed:
        """A step in which no group has a gradient."""
        none = np.zeros(0)
        return Replayed(
            step=recorded.step,
            grad_norm=recorded.grad_norm,
            threshold=np.nan,
            grouped=self._is_grouped,
            scale=1.0,
            outcome="unclipped",
            finite=bool(np.isfinite(recorded.grad_norm)),
            groups=(),
            groups_clipped=0,
            owner=np.zeros(0, np.intp),
            thresholds=none,
            scales=none,
        )

    def _placed(self, groups: tuple[Key, ...]) -> Placed:
        """The rows of some groups, and which group each is of."""
        if self._last is None or self._last[0] != groups:
            slices = [self._rows[key] for key in groups]
            lengths = [rows.stop - rows.start for rows in slices]
            index = np.concatenate([np.arange(rows.start, rows.stop) for rows in slices])
            self._last = groups, (index, np.repeat(np.arange(len(groups)), lengths))
        return self._last[1]


def _hides_nonfinite(grad_norm: float, norms: Floats) -> bool:
    """Whether a gradient that is in no group, such as a bias that AGC leaves out, is not finite."""
    return not np.isfinite(grad_norm) and bool(np.isfinite(HOST.norm(norms)))


def _floats(value: Any, what: str, step: float | None, *, by_unit: bool = False) -> Floats:
    """A norm as it is computed with."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unlike lengths
        array = np.asarray(None)
    is_shaped = array.size > 0 and array.ndim <= 1 if by_unit else array.size == 1
    if array.dtype.kind not in "iuf" or not is_shaped or (array < 0).any():
        allowed = "numbers of 0 or more, one for each unit" if by_unit else "a number of 0 or more"
        raise ReplayError(
            f"The {what} in step {_shown(step)} must be {allowed}; NaN and infinity are. Got "
            f"{_short(value)}."
        )
    floats: Floats = array.astype(np.float64).reshape(array.shape if by_unit else ())
    return floats


def _short(value: Any) -> str:
    is_long = type(value) is int and value.bit_length() > LONGEST
    text = f"an integer of {value.bit_length()} bits" if is_long else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _shown(step: float | None) -> str:
    if step is None:
        return "?"
    return f"{step:,.0f}" if float(step).is_integer() and abs(step) < EXACT else f"{step:.15g}"
