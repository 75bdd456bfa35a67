"""Samples as OpenTelemetry's instruments take them."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any, Final, TypeAlias

from opentelemetry.metrics import MeterProvider

from handlers.buckets import buckets_of
from handlers.series import Labels, Series
from telemetry.metrics import Kind, Sample

MAX_NAME: Final = 255
MAX_KNOWN: Final = 10_000

Key: TypeAlias = tuple[str, Kind, Labels, Labels]
Update: TypeAlias = Callable[[float, Any], None]

_MERGED: Final = frozenset({"counter", "last_value"})
_ILLEGAL: Final = re.compile("[^-_./a-zA-Z0-9]+")
_UCUM: Final = {
    "bytes": "By",
    "kB": "kBy",
    "MB": "MBy",
    "GB": "GBy",
    "KiB": "KiBy",
    "MiB": "MiBy",
    "GiB": "GiBy",
    "ratio": "1",
    "percent": "%",
}


class Instruments:
    """Makes the instruments of a meter as their first samples come.

    Args:
        provider: Gives the meter.
        max_series: How many sets of values of its tags a metric may have.
        merges: Whether a gauge is given only the last of the values between two `settle`, and a
            counter their sum, which is the same to whoever collects them and costs less.
    """

    def __init__(self, provider: MeterProvider, max_series: int, *, merges: bool = False) -> None:
        self._meter = provider.get_meter("trainbus")
        self._series = Series(max_series)
        self._instruments: dict[str, Any] = {}
        # What takes the values of a series, so that most samples need no look at their names.
        self._updates: dict[Key, Update] = {}
        self._merges = merges
        self._merged: dict[Key, tuple[Update, float, Any]] = {}

    def record(self, sample: Sample) -> str:
        """Take a sample in; "" or the reason why it was refused."""
        metric = sample.metric
        if not isfinite(sample.value):
            return "not_finite"
        if metric.kind in ("summary", "distribution") and sample.value < 0:
            return "negative"
        values = tuple([sample.tags.get(tag, "") for tag in metric.tags])
        key = (sample.name, metric.kind, metric.tags, values)
        update = self._updates.get(key)
        if update is None:
            instrument = self._instrument(sample, values)
            if isinstance(instrument, str):
                return instrument
            if len(self._updates) >= MAX_KNOWN:
                self._updates.clear()
            update = self._updates[key] = getattr(instrument, _UPDATES[metric.kind])
        if self._merges and metric.kind in _MERGED:
            before = self._merged.get(key)
            value = sample.value
            if before is not None and metric.kind == "counter":
                value += before[1]
            self._merged[key] = (update, value, sample.tags)
        else:
            update(sample.value, sample.tags)
        return ""

    def settle(self) -> None:
        """Let the instruments have what was merged."""
        merged, self._merged = self._merged, {}
        for update, value, tags in merged.values():
            update(value, tags)

    def _instrument(self, sample: Sample, values: Labels) -> Any:
        """What takes the values of one series; the reason if nothing does."""
        metric = sample.metric
        name = instrument_name(sample.name)
        known = name.lower()  # its case does not tell a name from another
        kind = _KINDS[metric.kind]
        if refusal := self._series.admit(known, sample.name, kind, metric.tags, values):
            return refusal
        if known not in self._instruments:
            self._instruments[known] = self._make(name, sample)
        return self._instruments[known]

    def _make(self, name: str, sample: Sample) -> Any:
        metric = sample.metric
        about: dict[str, Any] = {
            "unit": _UCUM.get(metric.unit, metric.unit),
            "description": metric.description,
        }
        if metric.kind in ("summary", "distribution"):
            about["explicit_bucket_boundaries_advisory"] = buckets_of(metric)
        return getattr(self._meter, f"create_{_KINDS[metric.kind]}")(name, **about)


_KINDS: Final[dict[Kind, str]] = {
    "counter": "counter",
    "last_value": "gauge",
    "sum": "up_down_counter",
    "summary": "histogram",
    "distribution": "histogram",
}

_UPDATES: Final[dict[Kind, str]] = {
    "counter": "add",
    "last_value": "set",
    "sum": "add",
    "summary": "record",
    "distribution": "record",
}


def instrument_name(reported: str) -> str:
    """The name of an instrument as OpenTelemetry allows it; whatever else is in it becomes ``_``.

    Example:
        >>> instrument_name("smartclip.grad_norm[layer/conv1]"), instrument_name("1st")
        ('smartclip.grad_norm_layer/conv1', 'n_1st')
    """
    name = _ILLEGAL.sub("_", reported).strip("_")
    return (name if name[:1].isalpha() else f"n_{name}")[:MAX_NAME]
