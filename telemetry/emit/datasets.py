"""Events of data sets: loading one, drawing batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.emit.send import Number, send
from telemetry.registry import Registry, default_registry
from telemetry.spans import NOTHING


def emit_dataset_load(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    size: int | None = None,
    duration: int | None = None,
    name: str | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``dataset.load``: a data set was loaded.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        size: How many items.
        duration: Of loading, in nanoseconds.
        name: Of the data set.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry, time
        >>> begun = time.monotonic_ns()
        >>> telemetry.emit_dataset_load(
        ...     name="digits", size=1797, duration=time.monotonic_ns() - begun)
    """
    known = {"size": size, "duration": duration}
    send(("dataset", "load"), measurements, known, more, metadata, {"name": name}, registry)


def emit_dataset_batch(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    batch_size: int | None = None,
    batch_idx: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``dataset.batch``: a batch was drawn.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        batch_size: How many items.
        batch_idx: Counted from 0.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_dataset_batch(batch_size=64, batch_idx=0)
    """
    known = {"batch_size": batch_size}
    send(
        ("dataset", "batch"),
        measurements,
        known,
        more,
        metadata,
        {"batch_idx": batch_idx},
        registry,
    )
