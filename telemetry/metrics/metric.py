"""What is reported of an event: one definition, and what it gives for one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from telemetry.names import matches
from telemetry.records import EventName, Pattern

Kind: TypeAlias = Literal["counter", "last_value", "sum", "summary", "distribution"]
"""How a sink is to combine the values of a metric."""

Reduction: TypeAlias = Literal["mean", "sum", "max", "min"]
"""How the values of several ranks become one."""

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Of an event's metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One definition, as `counter`, `last_value`, `sum_`, `summary` and `distribution` make it.

    Attributes:
        kind: How a sink is to combine the values.
        event: The event, or a pattern of events.
        measurement: Which of its measurements; ``"*"`` for all that no other definition names.
        report_as: Template of the reported name: ``{event}``, ``{measurement}`` and keys of the
            metadata in braces.
        tags: Keys of the metadata by which the values are told apart.
        measured_in: Unit of the measurement; "" where the catalogue says it, or nobody.
        unit: Of the reported value; "" where none is known.
        factor: What the measurement is multiplied by to be in that unit.
        description: In words.
        keep: Whether an event counts, by its metadata; None for all.
        sampling_rate: The probability with which an event is reported.
        reduce: How the values of several ranks become one; None reports each rank's own.
        buckets: Upper bounds of a distribution's buckets, in ``unit``; () for the sink's own.
    """

    kind: Kind
    event: Pattern
    measurement: str
    report_as: str
    tags: tuple[str, ...] = ()
    measured_in: str = ""
    unit: str = ""
    factor: float = 1.0
    description: str = ""
    keep: Predicate | None = None
    sampling_rate: float = 1.0
    reduce: Reduction | None = None
    buckets: tuple[float, ...] = ()

    def matches(self, event: EventName) -> bool:
        """Whether it is about the events of a name.

        Example:
            >>> from telemetry.metrics import last_value
            >>> last_value("training.*.loss").matches(("training", "step"))
            True
        """
        return matches(self.event, event)

    @property
    def source(self) -> str:
        """Under which key the value stands in the measurements that a sink gets.

        Example:
            >>> from telemetry.metrics import last_value
            >>> last_value("training.step.loss", reduce="mean").source
            'loss@mean'
        """
        return f"{self.measurement}@{self.reduce}" if self.reduce else self.measurement

    @property
    def presence(self) -> str:
        """Under which key a 0 says that no rank had a value, so that the one at `source` is none.

        It is there only where nobody could wait to see whether any had.

        Example:
            >>> from telemetry.metrics import last_value
            >>> last_value("training.step.loss", reduce="mean").presence
            'loss@ranks'
        """
        return f"{self.measurement}@ranks"


class Sample(NamedTuple):
    """What a metric is for one event."""

    metric: Metric
    name: str
    """The reported one."""
    value: float
    """In the metric's unit; 1 for a counter. NaN and infinities are kept."""
    tags: Mapping[str, str]
    """Those of the metric's tags that the event has; to be read only."""
