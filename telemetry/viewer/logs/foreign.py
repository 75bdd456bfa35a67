"""Records of other programs: where their times, their places and their metrics are.

Metrics are in ``metrics``, nested or not, else a ``metric`` has a ``value``, else they are whatever
numbers there are. A number is a number, a boolean, or text such as ``"NaN"`` (see
`telemetry.values.restore_number`). The frame reads by the same rules with the engine's means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from telemetry.values import DEEPEST, restore_number

TOO_DEEP: Final = f"nested deeper than {DEEPEST} levels"
"""Why a line is no record."""
USED: Final = ("timestamp", "event", "measurements", "metadata")
"""What our own records have."""
TIMES: Final = ("timestamp", "time", "ts", "_timestamp")
"""Where they have their time; the first that is there counts."""
EVENTS: Final = ("event", "_type")
"""Where they say what they are; the first that is there counts."""
STEPS: Final = ("step", "global_step")
"""Where they have their step; the first that is there counts."""
PLACES: Final = frozenset(
    {"epoch", "total_steps", "total_epochs", "attempt", "rank", "batch", "batch_idx"}
    | {*STEPS, *TIMES, *EVENTS}
)
"""Numbers beside the metrics that are none themselves."""
RESERVED: Final = frozenset({"run", "timestamp", "event", "step", "epoch", "record"})
"""The names of columns that frames have of their own."""


def is_ours(record: Mapping[str, Any]) -> bool:
    """Whether the handler ``jsonl`` wrote a record."""
    return record.get("event") is not None and isinstance(record.get("measurements"), dict)


def used_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of a record: of ours not what somebody has added.

    Example:
        >>> used_of({"event": "rl.step", "measurements": {}, "more": [1]})
        {'event': 'rl.step', 'measurements': {}}
    """
    return {key: value for key, value in record.items() if key in USED or not is_ours(record)}


def metric_name(path: Iterable[str]) -> str:
    """What a metric is called, by the keys that lead to it.

    Example:
        >>> metric_name(["train", "acc/top1"]), metric_name(["step"])
        ('train.acc.top1', 'metrics.step')
    """
    name = ".".join(path).replace("/", ".")
    return f"metrics.{name}" if name in RESERVED else name


def split_metrics(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics of a record, and what else it has.

    Example:
        >>> split_metrics({"step": 1, "train": {"loss": 2.5, "note": "x"}})
        ({'train.loss': 2.5}, {'step': 1, 'train': {'note': 'x'}})
        >>> split_metrics({"val/loss": 1, "val.loss": 2, "val": {"loss": 3}})  # one name
        ({'val.loss': 3}, {})
    """
    found: dict[tuple[str, ...], Any] = {}
    metrics, name = record.get("metrics"), record.get("metric")
    if isinstance(metrics, dict):
        left = _take(metrics, (), found)
        return _named(found), _without(record, "metrics") | ({"metrics": left} if left else {})
    if isinstance(name, str):
        left = _take({name: record.get("value")}, (), found)
        return _named(found), dict(record) if left else _without(record, "metric", "value")
    rest = _take(_without(record, *PLACES), (), found)
    return _named(found), {
        key: rest.get(key, record[key]) for key in record if key in PLACES or key in rest
    }


def _take(
    values: Mapping[str, Any], above: tuple[str, ...], found: dict[tuple[str, ...], Any]
) -> dict[str, Any]:
    """Move the numbers to ``found``, by the keys that lead to them; what is left."""
    left: dict[str, Any] = {}
    for key, value in values.items():
        if key and isinstance(value, dict) and value:
            inner = _take(value, (*above, key), found)
            left |= {key: inner} if inner else {}
        elif key and isinstance(number := restore_number(value), int | float):
            found[*above, key] = number
        else:
            left[key] = value
    return left


def _named(found: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The numbers by name; of several spellings the first in order counts."""
    path_of: dict[str, tuple[str, ...]] = {}
    for path in found:
        name = metric_name(path)
        path_of[name] = min(path, path_of.get(name, path))
    return {name: found[path] for name, path in path_of.items()}


def _without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}
