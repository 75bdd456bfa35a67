"""What all emit helpers do with their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from telemetry.arguments import check_count, check_mapping, check_name
from telemetry.records import EventName
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.runs.identity import with_own_attempt
from telemetry.spans import NOTHING

Number: TypeAlias = Any
"""A number, or a 0-d array or tensor of any framework."""


def _check_attempt(name: str, value: object) -> None:
    check_count(name, value, least=1)


_COUNTS: Final = ("step", "total_steps", "epoch", "total_epochs", "batch_idx")
PLACES: Final[Mapping[str, Callable[[str, object], object]]] = {
    **dict.fromkeys(_COUNTS, check_count),
    "attempt": _check_attempt,
    "run_id": check_name,
    "user_id": check_name,
}
"""Names that are metadata of whatever event, and what checks their values."""
_NAMES: Final = frozenset({"run_id", "user_id"})
_POSITIONAL: Final = ("measurements", "metadata")


def send(
    event: EventName,
    measurements: Mapping[str, Any],
    known: Mapping[str, Any],
    more: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    where: Mapping[str, Any],
    registry: Registry,
) -> None:
    """Emit an event.

    The arguments are checked whoever listens, so that a loop does not begin to fail on the day on
    which somebody does.

    Args:
        event: Its name.
        measurements: As a mapping.
        known: Those given by keyword, which win; None is left out.
        more: Keywords that the signature does not name: measurements, or one of `PLACES`.
        metadata: As a mapping.
        where: Those given by keyword, which win; None is left out.
        registry: The bus.

    Raises:
        TypeError: A place is of the wrong type, a mapping is none or is given by keyword, or the
            bus is none.
        ValueError: A count is too small or not whole, or a name is empty.
    """
    if type(measurements) is not dict:
        check_mapping(event, "Measurements", measurements)
    if more:
        known, where = _sorted_out(event, known, more, where)
    if metadata is None:
        metadata = NOTHING
    else:
        if type(metadata) is not dict:
            check_mapping(event, "Metadata", metadata)
        check_places(metadata)
    check_places(where)
    if registry is not default_registry:
        check_registry(registry)
    if registry.enabled(event):
        placed = {**metadata, **_given(where)}
        registry.execute(event, {**measurements, **_given(known)}, with_own_attempt(placed))


def check_places(metadata: Mapping[str, Any]) -> None:
    """Raise for metadata that say wrongly at which step, epoch or run something was.

    Raises:
        TypeError: One is of the wrong type.
        ValueError: A count is too small or not whole, or a name is empty.
    """
    for name in metadata:
        if name in PLACES:
            value = metadata[name]
            if value is not None and (type(value) is not int or value <= 0 or name in _NAMES):
                PLACES[name](name, value)


def _sorted_out(
    event: EventName, known: Mapping[str, Any], more: Mapping[str, Any], where: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Measurements and metadata among the keywords."""
    if not more.keys().isdisjoint(_POSITIONAL):
        _refuse_keyword(event, next(name for name in _POSITIONAL if name in more))
    if more.keys().isdisjoint(PLACES):
        return {**known, **more}, where
    return (
        {**known, **{name: value for name, value in more.items() if name not in PLACES}},
        {**where, **{name: value for name, value in more.items() if name in PLACES}},
    )


def _refuse_keyword(event: EventName, name: str) -> NoReturn:
    raise TypeError(
        f"Measurements and metadata of event {event!r} are given by position, got the keyword "
        f"{name!r}. Write ({{'loss': 2.5}}, {{'step': 1}}), or their names as keywords: "
        "(loss=2.5, step=1)."
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
