"""What is watched, and when it is worth an alert."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from telemetry.alerts import subject
from telemetry.alerts.problems import first_problem
from telemetry.records import Pattern

Severity: TypeAlias = Literal["critical", "error", "warning", "info"]


WRITTEN_AT: Final[ContextVar[tuple[str, int] | None]] = ContextVar("written_at", default=None)
"""The file and the line of the rule that is being made, if it is written in one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on one measurement, checked when the rule is made.

    Exactly one of ``above``, ``below``, ``outside``, ``drop``, ``spike``, ``nonfinite`` and
    ``stalled`` is given. Each series is judged by itself: values of other runs, ranks, splits,
    regularizers, operations or groups of gradients do not count in it.

    Values are judged in the unit of the event: durations of spans are nanoseconds. A NaN neither
    raises nor clears a rule on a limit, and does not count as a step; an infinity is a value beyond
    any limit. What is no single number is not judged.

    Args:
        name: Of the rule; the alert's title.
        metric: The event, then the measurement: ``"rl.step.kl_divergence"``. ``*`` as a segment of
            the event is any one, a last ``**`` any further ones. A name as it is reported will do
            where only one measurement can be meant: ``"rl.kl_divergence"``, ``"val.loss"``. For
            ``stalled`` the event alone.
        above: Raised by a value above this limit; the limit itself does not raise.
        below: Raised by a value below this limit; the limit itself does not raise.
        outside: Raised by a value outside this range ``(low, high)``, whose ends belong to it.
        drop: Raised by a value more than this share below the level: 0.5 is a drop to less than
            half of it. The level is the median of the last ``window`` values, as soon as there are
            10 of them (or ``window``, if that is less). Values beyond the limit do not enter it,
            and while it is not above 0 nothing is judged.
        spike: Raised by a value above this many times the level.
        nonfinite: Raised by a NaN or an infinity, cleared by a finite value.
        stalled: Raised when no event has come for this many seconds, counted from `attach`, from
            the start of a run, or from the last event of a run; cleared by the next event, or by
            the end of the run (``workflow.run.stop`` or ``.exception``), after which it is silent.
            A run is told by its ``run_id``, whatever its rank.
        for_steps: How many values in a row it takes.
        share: Raised when the condition holds for more than this share of ``window`` values:
            0.5 with a window of 100 takes 51 of the last 100.
        window: How many values the level, or the share, is of.
        clear: Where it is over again, if not at the limit itself, so that a value that swings
            around the limit makes one alert and not many: a limit within that of ``above`` or
            ``below``, a range within that of ``outside``, a share less than that of ``drop``, a
            factor less than that of ``spike``. With ``share``, a share less than that.
        cooldown: Seconds, counted from when it was raised, in which it is not raised again in the
            same series.
        severity: ``"critical"``, ``"error"``, ``"warning"`` or ``"info"``.
        where: Only events with these metadata count, such as ``{"split": "val"}``.
        message: What to do, in words; it follows what has happened in the alert's message.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: No condition or several, a range in which nothing can be, a name of which
            another is probably meant, ...

    Warns:
        UserWarning: The catalogue's event has a measurement of nearly this name.

    Example:
        >>> rule = Rule("kl", "rl.kl_divergence", above=0.1, clear=0.08, message="Lower the lr.")
        >>> rule.event, rule.measurement
        (('rl', 'step'), 'kl_divergence')
        >>> Rule("kl", "rl.step.kl_divergence")
        Traceback (most recent call last):
        ValueError: Rule 'kl' has no condition. Give one of: above, below, outside, drop, spike, \
nonfinite, stalled.
    """

    name: str
    metric: str
    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    outside: tuple[float, float] | None = field(default=None, kw_only=True)
    drop: float | None = field(default=None, kw_only=True)
    spike: float | None = field(default=None, kw_only=True)
    nonfinite: bool = field(default=False, kw_only=True)
    stalled: float | None = field(default=None, kw_only=True)
    for_steps: int = field(default=1, kw_only=True)
    share: float | None = field(default=None, kw_only=True)
    window: int = field(default=100, kw_only=True)
    clear: float | tuple[float, float] | None = field(default=None, kw_only=True)
    cooldown: float = field(default=0.0, kw_only=True)
    severity: Severity = field(default="critical", kw_only=True)
    where: Mapping[str, Any] | None = field(default=None, kw_only=True, hash=False)
    message: str | None = field(default=None, kw_only=True)
    event: Pattern = field(init=False, repr=False, compare=False)
    measurement: str = field(init=False, repr=False, compare=False)
    needs: tuple[tuple[str, Any], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problem = first_problem({name: getattr(self, name) for name in FIELDS})
        if problem is not None:
            raise problem.kind(problem.text)
        found = subject.resolve(self.metric, stalled=self.stalled is not None)
        needs = {**found.where, **(self.where or {})}
        for name in NUMBERS:
            object.__setattr__(self, name, _as_float(getattr(self, name)))
        for name, value in {
            "where": None if self.where is None else dict(self.where),
            "event": found.event,
            "measurement": found.measurement,
            "needs": tuple(needs.items()),
        }.items():
            object.__setattr__(self, name, value)
        if found.doubt:
            text, place = f"Rule {self.name!r}: {found.doubt}", WRITTEN_AT.get()
            if place is None:
                warnings.warn(text, UserWarning, stacklevel=3)
            else:
                warnings.warn_explicit(text, UserWarning, *place)


def _as_float(value: Any) -> Any:
    """A number, or a pair of them, of any kind that counts as one; None is None."""
    if isinstance(value, Sequence):
        return tuple(map(float, value))
    return None if value is None else float(value)


NUMBERS: Final = (
    "above",
    "below",
    "outside",
    "drop",
    "spike",
    "stalled",
    "share",
    "clear",
    "cooldown",
)
FIELDS = tuple(name for name, one in Rule.__dataclass_fields__.items() if one.init)
"""What a rule is made of."""
