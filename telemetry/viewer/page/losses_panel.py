"""The panel of a composed loss: its terms on top of each other, and the gradients' shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from telemetry.viewer.charts.curves import Curve
from telemetry.viewer.frames.points import Floats
from telemetry.viewer.page.axes import Axes
from telemetry.viewer.page.drawing import Look, draw, placed
from telemetry.viewer.page.recorded import Points, Recorded
from telemetry.viewer.page.watched import Snapshot

TOTAL: Final = "custom_loss.loss_total"
OF_REGULARIZERS: Final = "custom_loss.regularizer_total"
GRADIENT: Final = "custom_loss.total_grad_norm"
BASE: Final = "base loss"
MOST_BARS: Final = 240
"""Stacks side by side: more are thinner than a finger or a mouse can point at."""

_REGULARIZER: Final = re.compile(r"regularizer\.(.+)\.(contribution|value|grad_norm)", re.DOTALL)


def losses_told(
    snapshot: Snapshot, recorded: Recorded, axes: Axes, *, run: int, look: Look
) -> dict[str, Any]:
    """What a composed loss of a run is made of.

    Args:
        snapshot: What was read of the logs.
        recorded: Reads the points.
        axes: What places depend on.
        run: The number of the run.
        look: How it is looked at.

    Returns:
        ``terms``: the base loss and the contribution of each regularizer, the mean of each over
        the same stretches of the axis, so that they can be stacked. ``total``: the curve of the
        loss. ``shares``: the norm of each regularizer's weighted gradient, divided by that of the
        total gradient. Gradients that oppose each other have norms of more than their sum's.
    """
    names = [name for name in snapshot.columns if _REGULARIZER.fullmatch(name)]
    found = recorded.points(snapshot, (TOTAL, OF_REGULARIZERS, GRADIENT, *names))
    mine = {name: placed(points, axes, run, look.axis) for name, points in found.items()}
    mine = {name: curve for name, curve in mine.items() if len(curve[1])}
    told: dict[str, Any] = {"terms": [], "shares": [], "total": None, "width": 0.0}
    if TOTAL in mine:
        points, x = mine[TOTAL]
        told["total"] = draw(Curve(x, points.value), look)
    told["terms"], told["width"] = _stacked(_terms(mine), look)
    if GRADIENT in found:
        total = found[GRADIENT].where(found[GRADIENT].run == run)
        told["shares"] = [
            {"name": name, **draw(curve, look)} for name, curve in _shares(mine, total).items()
        ]
    return told


def _terms(mine: Mapping[str, tuple[Points, Floats]]) -> dict[str, Curve]:
    terms = {}
    if TOTAL in mine:
        total, x = mine[TOTAL]
        base = total.value.copy()
        if OF_REGULARIZERS in mine:
            parts, _ = mine[OF_REGULARIZERS]
            base -= _values_in(parts, total.row)
        terms[BASE] = Curve(x, base)
    for name, (points, x) in mine.items():
        if name.endswith(".contribution"):
            terms[_regularizer(name)] = Curve(x, points.value)
    return terms


def _shares(mine: Mapping[str, tuple[Points, Floats]], total: Points) -> dict[str, Curve]:
    """The norms of weighted gradients by that of the total, at the places of the former."""
    shares = {}
    for name, (norms, x) in mine.items():
        value, contribution = (
            mine.get(f"{name[: -len('.grad_norm')]}.{key}") for key in ("value", "contribution")
        )
        if not name.startswith("regularizer.") or not name.endswith(".grad_norm"):
            continue
        if value is None or contribution is None:
            continue
        values = _values_in(value[0], norms.row)
        weights = np.divide(
            _values_in(contribution[0], norms.row),
            values,
            where=values != 0,
            out=np.full(len(x), np.nan),
        )
        divisor = _totals_of(norms, total)
        share = np.divide(
            np.abs(weights) * norms.value, divisor, where=divisor != 0, out=np.full(len(x), np.nan)
        )
        kept = ~np.isnan(share)
        if kept.any():
            shares[_regularizer(name)] = Curve(x[kept], share[kept])
    return shares


def _totals_of(norms: Points, total: Points) -> Floats:
    """The total of each norm: the first record after its own, of the same step if both have one."""
    number = np.searchsorted(total.row, norms.row)
    values = np.append(total.value, np.nan)[number]
    step = np.append(total.step, np.nan)[number]
    is_other = np.isfinite(step) & np.isfinite(norms.step) & (step != norms.step)
    return np.where(is_other, np.nan, values)


def _stacked(terms: Mapping[str, Curve], look: Look) -> tuple[list[dict[str, Any]], float]:
    """The mean of each term in each of some stretches of the axis, and how wide these are."""
    within = {
        name: (curve.x >= look.start) & (curve.x <= look.end) & np.isfinite(curve.y)
        for name, curve in terms.items()
    }
    places = [curve.x[within[name]] for name, curve in terms.items() if within[name].any()]
    if not places:
        return [], 0.0
    first, last = min(x[0] for x in places), max(x[-1] for x in places)
    count = min(MOST_BARS, len(np.unique(np.concatenate(places))))
    width = (last - first) / max(count - 1, 1) or 1.0
    middles = first + width * np.arange(count)
    told = []
    for name, curve in terms.items():
        x, y = curve.x[within[name]], curve.y[within[name]]
        bars = np.minimum(((x - first) / width + 0.5).astype(np.intp), count - 1)
        counts = np.bincount(bars, minlength=count)
        sums = np.bincount(bars, weights=y, minlength=count)
        there = counts > 0
        told.append({"name": name, "x": middles[there], "y": sums[there] / counts[there]})
    return told, width


def _values_in(points: Points, rows: Any) -> Floats:
    """The values of records by their rows; NaN where one has none."""
    order = np.argsort(points.row)
    sorted_rows = points.row[order]
    here = np.minimum(np.searchsorted(sorted_rows, rows), max(len(sorted_rows) - 1, 0))
    values: Floats = np.where(sorted_rows[here] == rows, points.value[order][here], np.nan)
    return values


def _regularizer(name: str) -> str:
    return name.removeprefix("regularizer.").rpartition(".")[0]
