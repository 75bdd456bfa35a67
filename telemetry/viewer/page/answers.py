"""What the page is told of the runs: each question with its answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from telemetry.viewer.charts.strokes import palette
from telemetry.viewer.page.axes import Axes, find_axes
from telemetry.viewer.page.clipping_panel import SCALE, clipping_told
from telemetry.viewer.page.live import Live
from telemetry.viewer.page.losses_panel import TOTAL, losses_told
from telemetry.viewer.page.metric_charts import curves, metrics_told
from telemetry.viewer.page.problems import problems_told
from telemetry.viewer.page.questions import in_units, look_of, runs_of, whole
from telemetry.viewer.page.recorded import Recorded
from telemetry.viewer.page.spans import Spans
from telemetry.viewer.page.watched import Snapshot

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

MOST_RUNS: Final = 8
"""Runs that are shown where none was chosen: what eyes can tell apart."""


class Answers:
    """Answers what the page asks.

    Args:
        live: Looks at the logs.
        settings: What the page begins with, as the command line has it.
    """

    def __init__(self, live: Live, settings: dict[str, Any]) -> None:
        self._watched = live.watched
        self._live = live
        self._settings = settings
        self._recorded = Recorded()
        self._spans = Spans()
        self._lock = threading.Lock()
        self._axes: tuple[Snapshot, Axes] | None = None

    def state(self, query: QueryParams) -> dict[str, Any]:
        """What there is: runs, metrics, axes, and how the reading goes."""
        told = {
            "version": self._live.version,
            "problem": self._live.problem,
            "settings": self._settings,
            "paths": [str(path) for path in self._watched.paths],
            "unread": self._watched.unread,
        }
        snapshot = self._watched.snapshot
        if snapshot is None:
            return {**told, "ready": False}
        axes = self._axes_of(snapshot)
        return {
            **told,
            "ready": True,
            "runs": list(snapshot.runs),
            "usual": _begun_last(axes),
            "colors": palette(max(len(snapshot.runs), 7)),
            "metrics": metrics_told(snapshot),
            "axes": axes.available,
            "unit": axes.unit._asdict(),
            "records": snapshot.size,
            "left_out": sum(snapshot.records.bad_lines),
            "clipping": SCALE in snapshot.columns,
            "losses": TOTAL in snapshot.columns
            or any(name.endswith(".contribution") for name in snapshot.columns),
        }

    def curves(self, query: QueryParams) -> list[dict[str, Any]]:
        """The curves of metrics."""
        snapshot = self._watched.snapshot
        if snapshot is None:
            return []
        axes = self._axes_of(snapshot)
        return curves(
            snapshot,
            self._recorded,
            axes,
            metrics=list(dict.fromkeys(query.getlist("metric"))),
            runs=runs_of(query, len(snapshot.runs)),
            look=in_units(look_of(query), axes),
        )

    def clipping(self, query: QueryParams) -> dict[str, Any]:
        """The clipping panel."""
        snapshot = self._watched.snapshot
        if snapshot is None:
            return {"curves": [], "marks": [], "totals": []}
        axes = self._axes_of(snapshot)
        return clipping_told(
            snapshot,
            self._recorded,
            axes,
            runs=runs_of(query, len(snapshot.runs)),
            look=in_units(look_of(query), axes),
            window=whole(query, "window", 100, 1, 100_000),
        )

    def losses(self, query: QueryParams) -> dict[str, Any]:
        """The loss panel, of the first run that is asked for."""
        snapshot = self._watched.snapshot
        runs = runs_of(query, len(snapshot.runs)) if snapshot else ()
        if snapshot is None or not runs:
            return {"terms": [], "shares": [], "total": None, "width": 0.0}
        axes = self._axes_of(snapshot)
        look = in_units(look_of(query), axes)
        return losses_told(snapshot, self._recorded, axes, run=runs[0], look=look)

    def spans(self, query: QueryParams) -> dict[str, Any]:
        """The spans of the first run that is asked for; ``from`` and ``to`` are in seconds."""
        snapshot = self._watched.snapshot
        runs = runs_of(query, len(snapshot.runs)) if snapshot else ()
        look = look_of(query)
        if snapshot is None or not runs:
            return {"spans": [], "count": 0, "end": 0.0}
        origin = float(np.nan_to_num(self._axes_of(snapshot).starts[runs[0]]))
        return self._spans.told(
            snapshot, run=runs[0], origin=origin, start=look.start, end=look.end
        )

    def problems(self, query: QueryParams) -> dict[str, Any]:
        """What went wrong."""
        snapshot = self._watched.snapshot
        return (
            problems_told(snapshot)
            if snapshot
            else {"problems": [], "count": 0, "alarms": 0, "last": -1}
        )

    def _axes_of(self, snapshot: Snapshot) -> Axes:
        with self._lock:
            if self._axes is None or self._axes[0] is not snapshot:
                self._axes = (snapshot, find_axes(snapshot))
            return self._axes[1]


def _begun_last(axes: Axes) -> list[int]:
    """The numbers of the runs that are shown where none was chosen, in the order of all."""
    begun = np.nan_to_num(axes.starts, nan=-np.inf)
    return sorted(np.argsort(begun, kind="stable")[-MOST_RUNS:].tolist())
