"""Which values belong together: what tells the series of an event apart, and how many are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar

from telemetry.events import CATALOGUE, find
from telemetry.events.reported import text
from telemetry.metrics.naming import fields_of
from telemetry.records import EventName

ALWAYS: Final = ("run_id", "rank", "host")
"""Keys of the metadata by which the series of any event are told apart: one place of a run."""
MAX_SERIES: Final = 4096
"""Of all events together; the one that was longest without a value is forgotten first."""

_IDENTITIES: Final = frozenset(
    {
        *("algo", "dry_run", "handler_id", "model", "model_id", "name", "policy", "scope"),
        "workflow",
    }
)
_NOT_KEYS: Final = frozenset({"event", "measurement"})
_NAMING: Final = tuple(
    sorted({key for spec in CATALOGUE for key in fields_of(spec.reported)} - _NOT_KEYS)
)

State = TypeVar("State")


def keys_of(event: EventName) -> tuple[str, ...]:
    """The keys of the metadata by which the series of an event are told apart, beside `ALWAYS`.

    That is what the reported names of its measurements are made of (the split, the regularizer,
    the group, ...), and who it is about (the model, the clipper, the handler, ...). An event that
    the catalogue does not know has the naming keys of all that it does know.

    Example:
        >>> keys_of(("training", "eval")), keys_of(("training", "step"))
        (('split',), ())
    """
    spec = find(event)
    if spec is None:
        return tuple(key for key in _NAMING if key not in ALWAYS)
    naming = fields_of(spec.reported) - _NOT_KEYS
    return tuple(sorted(naming | (_IDENTITIES & {field.name for field in spec.metadata})))


def hashable(identity: tuple[Any, ...]) -> tuple[Hashable, ...]:
    """What tells a series from others, with texts for what cannot be looked up.

    Example:
        >>> hashable(("r1", None, ["layer", "conv1"]))
        ('r1', None, 'layer/conv1')
    """
    try:
        hash(identity)
    except TypeError:
        return tuple(value if _is_hashable(value) else text(value) for value in identity)
    return identity


def is_same(identity: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two series are the same, as far as they can be compared.

    Example:
        >>> is_same(("r1", None), ("r1", None))
        True
    """
    try:
        return identity == other
    except Exception:
        return False  # arrays, which compare element by element


def as_raised(metadata: Mapping[str, Any], raised: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an event that ends an alert: of the run, rank and host that it was raised for.

    Example:
        >>> as_raised({"run_id": "a", "rank": 0, "step": 7}, {"run_id": "a", "step": 3})
        {'step': 7, 'run_id': 'a'}
    """
    others = {key: value for key, value in metadata.items() if key not in ALWAYS}
    return {**others, **{key: raised[key] for key in ALWAYS if key in raised}}


class Series(OrderedDict[tuple[Hashable, ...], State]):
    """A state for each of many series, of which only so many are kept.

    Args:
        most: How many.

    Example:
        >>> series = Series[str](most=2)
        >>> for name in "abac":
        ...     series.keep((name,), name.upper())
        >>> list(series.values())
        ['A', 'C']
    """

    def __init__(self, most: int = MAX_SERIES) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: tuple[Hashable, ...], state: State) -> None:
        """Keep the state of a series that is used now; another may be forgotten for it."""
        self[key] = state
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
