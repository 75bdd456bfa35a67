"""From where the axes of each run are counted: when it began, and what is before its epochs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from telemetry.viewer.frames.epochs import Offsets, epoch_offsets
from telemetry.viewer.logs.leading import leading

if TYPE_CHECKING:
    import duckdb

_SUMMARY: Final = """
SELECT run, epoch_us(min(timestamp)), epoch_us(max(timestamp)), count(step), count(epoch)
FROM current GROUP BY place, run ORDER BY place"""
_EPOCHS: Final = """
SELECT run, event, floor(epoch) AS number, min(step), max(step), count(*) FROM current
WHERE isfinite(step) AND isfinite(epoch) GROUP BY ALL ORDER BY run, event, number"""
_STEPS: Final = """
SELECT DISTINCT floor(epoch) AS number, step FROM current
WHERE run = ? AND event = ? AND isfinite(step) AND isfinite(epoch)"""


class Origin(NamedTuple):
    """What all records of a run say of where they are.

    Attributes:
        began: The time of the first, in microseconds since 1970; None where none has a time.
        ended: Of the last, likewise.
        steps: How many have a step.
        epochs: How many have an epoch.
        offsets: What is before each epoch, where the steps begin anew in each; else None.
        leading: The event whose steps do so; those of others may count on by themselves.
    """

    began: int | None
    ended: int | None
    steps: int
    epochs: int
    offsets: Offsets | None = None
    leading: str = ""


def find_origins(connection: duckdb.DuckDBPyConnection) -> dict[str, Origin]:
    """The origins of all runs by their labels, in order; `find_runs` has told the runs apart.

    They are those of all records, so that a point is at one place whatever else is read.

    Args:
        connection: The engine's, or a cursor of it.
    """
    found = connection.execute(_SUMMARY).fetchall()
    restarting = _restarting(connection)
    return {
        run: Origin(began, ended, steps, epochs, *restarting.get(run, ()))
        for run, began, ended, steps, epochs in found
    }


def noted(origins: Mapping[str, Origin]) -> dict[str, dict[str, Any]]:
    """Origins as a frame's ``attrs["origins"]`` has them, of which JSON can be made.

    Example:
        >>> noted({"a": Origin(1, 2, 3, 0)})
        {'a': {'began': 1, 'offsets': None}}
    """
    return {
        run: {
            "began": origin.began,
            "offsets": origin.offsets and [each.tolist() for each in origin.offsets],
        }
        for run, origin in origins.items()
    }


def _restarting(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[Offsets, str]]:
    """The runs whose steps begin anew in each epoch: what is before each, and whose they are."""
    restarting = {}
    for run, event in _suspects(connection):
        found = connection.execute(_STEPS, [run, event]).fetchnumpy()
        told = epoch_offsets(np.asarray(found["step"]), np.asarray(found["number"]))
        if told is not None:
            restarting[run] = (told, event)
    return restarting


def _suspects(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """The runs whose steps go back in a later epoch, each with its leading event."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    last: dict[tuple[str, str], float] = {}
    back = set()
    for run, event, _, first, end, count in connection.execute(_EPOCHS).fetchall():
        counts[run][event] += count
        before = last.get((run, event), -np.inf)
        if first < before:
            back.add((run, event))
        last[run, event] = max(end, before)
    leaders = [(run, leading(of_run)) for run, of_run in counts.items()]
    return [leader for leader in leaders if leader in back]
