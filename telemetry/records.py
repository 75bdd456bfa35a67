"""Types that every part of the bus shares: a leaf module without imports of its own package."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

EventName: TypeAlias = tuple[str, ...]
"""A hierarchical name, such as ``("training", "step")``."""

Pattern: TypeAlias = tuple[str, ...]
"""An event name in which ``"*"`` and a last ``"**"`` are wildcards."""

Measurements: TypeAlias = Mapping[str, Any]
Metadata: TypeAlias = Mapping[str, Any]

HandlerFunction: TypeAlias = Callable[[EventName, Measurements, Metadata, Any], object]
"""``handler(event, measurements, metadata, config)``; what it returns is ignored."""

OnFailure: TypeAlias = Literal["detach", "keep"]


class Event(NamedTuple):
    """An event as it was emitted."""

    event: EventName
    measurements: Mapping[str, Any]
    metadata: Mapping[str, Any]


class HandlerInfo(NamedTuple):
    """One event or pattern of one attached handler."""

    id: Hashable
    event: Pattern
    function: HandlerFunction
    config: Any
