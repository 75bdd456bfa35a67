r"""Look at a run: what the handler ``jsonl`` wrote, as frames and pictures.

Everything is imported on first use: ``pip install 'trainbus[viewer]'`` brings what it needs.

Example:
    >>> import json, pathlib, tempfile
    >>> from telemetry import viewer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = pathlib.Path(folder, "metrics.jsonl")
    ...     lines = [{"step": n, "metrics": {"train.loss": 2.5 / n}} for n in range(1, 5)]
    ...     _ = log.write_text("\n".join(map(json.dumps, lines)))
    ...     frame = viewer.moving_average(viewer.read_jsonl(log), window=2)
    >>> frame["train.loss"].round(3).tolist()
    [2.5, 1.875, 1.042, 0.729]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from telemetry.viewer.charts.pictures import save_plot
    from telemetry.viewer.charts.plot import plot_metrics
    from telemetry.viewer.frames.downsampling import downsample
    from telemetry.viewer.frames.epochs import global_step
    from telemetry.viewer.frames.frame import read_jsonl
    from telemetry.viewer.frames.limits import clip
    from telemetry.viewer.frames.selection import filter_metrics
    from telemetry.viewer.frames.smoothing import moving_average
    from telemetry.viewer.logs.bad_lines import BadLinesWarning
    from telemetry.viewer.logs.entries import read_entries
    from telemetry.viewer.logs.following import follow_entries
    from telemetry.viewer.summaries.summary import summarize

__all__ = [
    "BadLinesWarning",
    "clip",
    "downsample",
    "filter_metrics",
    "follow_entries",
    "global_step",
    "moving_average",
    "plot_metrics",
    "read_entries",
    "read_jsonl",
    "save_plot",
    "summarize",
]

_MODULE_OF: Final = {
    "BadLinesWarning": "logs.bad_lines",
    "clip": "frames.limits",
    "downsample": "frames.downsampling",
    "filter_metrics": "frames.selection",
    "follow_entries": "logs.following",
    "global_step": "frames.epochs",
    "moving_average": "frames.smoothing",
    "plot_metrics": "charts.plot",
    "read_entries": "logs.entries",
    "read_jsonl": "frames.frame",
    "save_plot": "charts.pictures",
    "summarize": "summaries.summary",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'telemetry.viewer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"telemetry.viewer.{_MODULE_OF[name]}"), name)
