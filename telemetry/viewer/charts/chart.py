"""What a chart shows: panels with lines, worked out before anything is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from telemetry.viewer.charts.curves import Curve, Line
from telemetry.viewer.charts.labels import label_runs
from telemetry.viewer.charts.treatment import Treatment, treated
from telemetry.viewer.frames.axes import TIME, axes_of, check_axis, positions, unit_of
from telemetry.viewer.frames.points import Floats, check_frame, metrics_of, runs_of
from telemetry.viewer.frames.selection import default_metrics, dotted, match_metrics, panel_of

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_DRAWN: Final = 60
"""Panels of a chart."""
MOST_TOLD: Final = 3
"""Names of metrics in an error."""
LARGEST: Final = 1e250
"""What is beyond it is drawn as an infinity: axes need some room to reckon with."""


class Panel(NamedTuple):
    """Lines that share an axis."""

    title: str
    lines: tuple[Line, ...]


class Chart(NamedTuple):
    """Panels one below the other.

    Attributes:
        panels: In order.
        runs: The labels of all runs, in order.
        metrics: The metrics, in order.
        x_label: What the horizontal axis is.
    """

    panels: tuple[Panel, ...]
    runs: tuple[str, ...]
    metrics: tuple[str, ...]
    x_label: str


def check_frames(data: DataFrame | Iterable[DataFrame], where: str) -> list[DataFrame]:
    """The frames that are plotted.

    Raises:
        TypeError: Something else was given.
        ValueError: There are no metrics in them.
    """
    single = hasattr(data, "columns") or not isinstance(data, Iterable)
    frames = [check_frame(each, where) for each in ([data] if single else data)]
    if any(frame[name].notna().any() for frame in frames for name in metrics_of(frame)):
        return frames
    raise without_metrics(
        where, [str(file) for frame in frames for file in frame.attrs.get("sources", ())]
    )


def without_metrics(where: str, files: Sequence[str]) -> ValueError:
    """The error that there are no metrics in some files."""
    which = ", ".join(files) if files else "it"
    return ValueError(
        f"Empty DataFrame provided to {where}: {which} has no metrics. A record needs an object "
        "'measurements' or 'metrics' with numbers in it, or numbers at its top level."
    )


def chart_of(
    frames: Sequence[DataFrame],
    metrics: str | Iterable[str] | None,
    x_key: str,
    labels: Sequence[str] | None,
    treatment: Treatment,
) -> Chart:
    """Work out what to draw.

    Raises:
        TypeError: A name is no string.
        ValueError: A metric or an axis is unknown, or has no points, or there is nothing to make a
            band of.
    """
    axis = check_axis(frames, x_key)
    places = [_drawable(positions(frame, axis)) for frame in frames]
    names = _names(frames, metrics, places, axis)
    labelled = label_runs(frames, labels, shared=treatment.band is not None)
    lines = [
        Line(name, label, curve)
        for frame, xs, given in zip(frames, places, labelled, strict=True)
        for name in names
        if name in frame.columns
        for label, curve in _curves(frame, name, xs, given, axis)
    ]
    x_label = axis
    if axis == TIME:
        lines, x_label = _in_unit(lines)
    lines = treated(lines, treatment, by_name=labels is None)
    runs = tuple(dict.fromkeys(line.run for line in lines))
    return Chart(_panels(names, lines), runs, tuple(names), x_label)


def _names(
    frames: Sequence[DataFrame],
    wanted: str | Iterable[str] | None,
    places: Sequence[Floats],
    axis: str,
) -> list[str]:
    """The metrics that are drawn, each of which has points on the axis."""
    there = list(dict.fromkeys(name for frame in frames for name in metrics_of(frame)))
    named = there if wanted is None else match_metrics(wanted, there)
    placed = [
        name
        for name in named
        if any(
            name in frame.columns and (frame[name].notna().to_numpy() & np.isfinite(xs)).any()
            for frame, xs in zip(frames, places, strict=True)
        )
    ]
    if not placed:
        raise ValueError(_without_points(frames, named, axis))
    return default_metrics(placed) if wanted is None else named


def _drawable(xs: Floats) -> Floats:
    """Places, with NaN where one is too far away to be drawn."""
    return np.where(np.abs(xs) <= LARGEST, xs, np.nan)


def _without_points(frames: Sequence[DataFrame], names: list[str], axis: str) -> str:
    which = ", ".join(names[:MOST_TOLD])
    if len(names) > MOST_TOLD:
        which += f" and {len(names) - MOST_TOLD} more"
    with_values = [
        frame.loc[frame[name].notna()] for frame in frames for name in names if name in frame
    ]
    with_values = [frame for frame in with_values if len(frame)]
    if not with_values:
        return f"There are no values of {which}."
    others = [each for each in axes_of(with_values) if each not in names]
    if not others:
        return f"No value of {which} has {axis!r}, or a place on any other axis."
    return f"No value of {which} has {axis!r}. Axes it has: {', '.join(others[:8])}."


def _curves(
    frame: DataFrame, name: str, xs: Floats, labels: list[str], axis: str
) -> Iterator[tuple[str, Curve]]:
    values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.where(np.abs(values) > LARGEST, np.copysign(np.inf, values), values)
    for label, (run, rows) in zip(labels, runs_of(frame), strict=True):
        points = rows[~np.isnan(values[rows])]
        placed = points[np.isfinite(xs[points])]
        if len(placed) < len(points):
            metric = f"{name} of {run or 'the run'}"
            warnings.warn(
                f"Some values of {metric} are not drawn: they have no {axis!r}."
                if len(placed)
                else f"{metric} is not drawn: none of its values has {axis!r}.",
                stacklevel=5,
            )
        if len(placed):
            yield label, Curve(xs[placed], values[placed])


def _in_unit(lines: list[Line]) -> tuple[list[Line], str]:
    unit = unit_of(max(line.curve.x.max() for line in lines))
    scaled = [
        replace(line, curve=Curve(line.curve.x / unit.seconds, line.curve.y)) for line in lines
    ]
    return scaled, f"time ({unit.name})"


def _panels(names: Sequence[str], lines: Sequence[Line]) -> tuple[Panel, ...]:
    titles = list(dict.fromkeys(panel_of(line.metric) for line in lines))
    if len(titles) > MOST_DRAWN:
        raise ValueError(
            f"{len(names)} metrics would need {len(titles)} panels, and a chart has "
            f"{MOST_DRAWN} at most. Name fewer metrics."
        )
    groups = [tuple(line for line in lines if panel_of(line.metric) == title) for title in titles]
    return tuple(
        Panel(_title(title, group), group) for title, group in zip(titles, groups, strict=True)
    )


def _title(title: str, lines: tuple[Line, ...]) -> str:
    """The name of the metric, or of what several have in common."""
    metrics = {line.metric for line in lines}
    return dotted(metrics.pop()) if len(metrics) == 1 else title
