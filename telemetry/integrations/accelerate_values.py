"""What is logged with accelerate, as events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from telemetry.arguments import check_count
from telemetry.integrations.scalars import scalar_of

SPLITS: Final = ("dev", "eval", "test", "val", "valid", "validation")
"""What the name of an evaluation's number begins with, and then ``_``, ``/`` or ``.``."""

_TRAINING: Final = ("train", "training")
_SEPARATORS: Final = ("_", "/", ".")
_PLACES: Final = ("step", "total_steps", "epoch", "total_epochs")
_IDENTITY: Final = ("run_id", "attempt", "split")
"""What the run and the names say: what is logged under these names says nothing else."""
_NAMES: Final = {"learning_rate": "lr"}


class Logged(NamedTuple):
    """The values of one ``accelerator.log``.

    Attributes:
        step: The measurements of the training step.
        splits: Those of evaluations, by split.
        metadata: The rest.
    """

    step: dict[str, Any]
    splits: dict[str, dict[str, Any]]
    metadata: dict[str, Any]


def sort_out(values: Mapping[str, Any]) -> Logged:
    """Tell training, evaluation and metadata apart by their names and types.

    Example:
        >>> sort_out({"train_loss": 2.5, "val/loss": 0.5, "learning_rate": 0.1, "epoch": 1})
        Logged(step={'loss': 2.5, 'lr': 0.1}, splits={'val': {'loss': 0.5}}, metadata={'epoch': 1})
    """
    sorted_out = Logged({}, {}, {})
    for name, value in values.items():
        number = scalar_of(value)
        if number is None or _is_place(name, value):
            if name not in _IDENTITY:
                sorted_out.metadata[name] = value
            continue
        first, rest = _split(str(name))
        if first in SPLITS:
            sorted_out.splits.setdefault(first, {})[rest] = number
        else:
            sorted_out.step[_NAMES.get(rest, rest)] = number
    return sorted_out


def _split(name: str) -> tuple[str, str]:
    places = [place for mark in _SEPARATORS if 0 < (place := name.find(mark)) < len(name) - 1]
    if places and (first := name[: min(places)]) in (*SPLITS, *_TRAINING):
        return first, name[min(places) + 1 :]
    return "", name


def _is_place(name: str, value: object) -> bool:
    if name not in _PLACES or hasattr(value, "dtype"):
        return False
    try:
        check_count(name, value)
    except ValueError:
        return False  # half an epoch
    return True
