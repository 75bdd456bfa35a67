"""Rows of a tracker: the values of several events of one place together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache

from handlers.axes import Place, place_of
from handlers.curves import MAX_NAMES, Curves, key_of
from handlers.losses import is_announcement
from handlers.records import TimedEvent
from telemetry import EventName


@dataclass(slots=True)
class Row:
    """What several events reported of one place.

    Attributes:
        place: Where they stand; None for an event that does not say.
        time_ns: When the first of them was emitted, in nanoseconds since 1970 (UTC).
        values: By the tracker's name of the curve.
        events: How many they are.
        opened: When it was begun here, by the monotonic clock, in seconds.
    """

    place: Place | None
    time_ns: int
    values: dict[str, float] = field(default_factory=dict)
    events: int = 0
    opened: float = field(default_factory=time.monotonic)


class Rows:
    """Merges events into rows. One thread at a time may use it.

    A row is complete when another place of its axis comes, when one of its curves has a second
    value, or when it has been open for a while; so each value is in exactly one row. Values
    without a place form a row with the other values of their event only.

    Args:
        curves: What is reported of an event.
        patience: Seconds for which a row stays open.

    Example:
        >>> rows = Rows(Curves(None), patience=0.25)
        >>> rows.add(TimedEvent(0, ("training", "step"), {"loss": 2.5}, {"step": 1}))
        []
        >>> rows.add(TimedEvent(0, ("rl", "step"), {"entropy": 1.5}, {"step": 1}))
        []
        >>> (row,) = rows.add(TimedEvent(0, ("training", "step"), {"loss": 2.0}, {"step": 2}))
        >>> row.place, row.values
        (Place(axis='step', number=1), {'training/loss': 2.5, 'rl/entropy': 1.5})
    """

    def __init__(self, curves: Curves, *, patience: float) -> None:
        self._curves = curves
        self._patience = patience
        self._open: dict[str, Row] = {}

    def hears(self, event: EventName) -> bool:
        """Whether events of a name can be in a row."""
        return self._curves.reports(event)

    def add(self, entry: TimedEvent) -> list[Row]:
        """Add an event; the rows that are complete with it."""
        points = self._curves.points(entry)
        if not points:
            return []
        place = place_of(entry.metadata)
        complete: list[Row] = []
        row = self._row_at(place, entry.time_ns, complete)
        for point in points:
            key = key_of(point.name)
            if key in row.values:
                complete.append(row)
                row = Row(place, entry.time_ns)
            row.values[key] = point.value
        row.events += not is_announcement(entry.event)
        if place is None:
            complete.append(row)
        else:
            self._open[place.axis] = row
        return complete

    def due(self) -> list[Row]:
        """The rows that have been open for long enough; they are complete now."""
        limit = time.monotonic() - self._patience
        return [self._open.pop(axis) for axis, row in [*self._open.items()] if row.opened <= limit]

    def rest(self) -> list[Row]:
        """The rows that are open; they are complete now."""
        rows = list(self._open.values())
        self._open.clear()
        return rows

    @property
    def events(self) -> int:
        """How many events the open rows have."""
        return sum(row.events for row in self._open.values())

    def _row_at(self, place: Place | None, time_ns: int, complete: list[Row]) -> Row:
        """The row of a place; what was open on its axis is complete if it stands elsewhere."""
        if place is None:
            return Row(place, time_ns)
        row = self._open.pop(place.axis, None)
        if row is not None and row.place == place:
            return row
        if row is not None:
            complete.append(row)
        return Row(place, time_ns)


@lru_cache(maxsize=MAX_NAMES)
def axis_key(key: str, axis: str) -> str:
    """Under which key a row says where the values of a family stand.

    Example:
        >>> axis_key("training/loss", "step"), axis_key("loss", "epoch")
        ('training/step', 'epoch')
    """
    family = family_of(key)
    return f"{family}/{axis}" if family else axis


def placed(row: Row) -> dict[str, float]:
    """The values of a row, with those that say where each family stands.

    A measurement that is called like its axis, as the ``step`` of ``training.step``, would hide
    where the others stand: it has ``_value`` at its end.

    Example:
        >>> placed(Row(Place("step", 1), 0, {"training/loss": 2.5, "training/step": 7.0}))
        {'training/loss': 2.5, 'training/step_value': 7.0, 'training/step': 1}
    """
    if row.place is None:
        return row.values
    places = {axis_key(key, row.place.axis): row.place.number for key in row.values}
    values = {f"{key}_value" if key in places else key: v for key, v in row.values.items()}
    return {**values, **places}


def family_of(key: str) -> str:
    """What the curves of one family begin with; empty for a curve by itself.

    Example:
        >>> family_of("smartclip/grad_norm[layer/conv1]"), family_of("loss[layer/conv1]")
        ('smartclip', '')
    """
    family, slash, _ = key.partition("[")[0].partition("/")
    return family if slash else ""
