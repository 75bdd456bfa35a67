"""In which lane of a time line each span is, so that none covers another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

MOST_LANES: Final = 40
"""What would be further down is drawn in the last one."""


class Spanned(Protocol):
    """What has a time, and may be in another."""

    @property
    def span(self) -> str | None:
        """Its id."""

    @property
    def parent(self) -> str | None:
        """The id of what it is in."""

    @property
    def first(self) -> float:
        """When it begins."""

    @property
    def last(self) -> float:
        """When it ends."""


AnySpan = TypeVar("AnySpan", bound=Spanned)


def lanes_of(spans: Iterable[AnySpan]) -> list[tuple[AnySpan, int]]:
    """Lay spans out: each below the one that it is in, in the first lane that is free.

    Args:
        spans: In any order.

    Returns:
        Each with its lane, in the order in which they begin; of those that begin at once, what
        lasts longer comes first.
    """
    ends: list[float] = []
    lanes: dict[str, int] = {}
    laid = []
    for each in sorted(spans, key=lambda one: (one.first, -one.last)):
        above = lanes.get(each.parent, -1) if each.parent else -1
        lane = _free_lane(ends, min(above + 1, MOST_LANES - 1), each.first)
        ends[lane] = max(ends[lane], each.last)
        if each.span:
            lanes[each.span] = lane
        laid.append((each, lane))
    return laid


def _free_lane(ends: list[float], lane: int, first: float) -> int:
    while lane < MOST_LANES - 1:
        if lane >= len(ends):
            break
        if ends[lane] <= first:
            return lane
        lane += 1
    ends += [float("-inf")] * (lane + 1 - len(ends))
    return lane
