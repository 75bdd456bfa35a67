"""Events of finished models: evaluated, registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.emit.send import Number, send
from telemetry.registry import Registry, default_registry
from telemetry.spans import NOTHING


def emit_eval_complete(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    model: str | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``eval.complete``: an evaluation of a finished model has ended.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        model: Which model.
        registry: The bus.
        **more: The measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_eval_complete(model="digits-mlp", accuracy=0.97)
    """
    send(("eval", "complete"), measurements, NOTHING, more, metadata, {"model": model}, registry)


def emit_model_registered(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str | int | None = None,
    model_id: str | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``model.registered``: a model entered a registry.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        name: Of the model.
        version: Of the model.
        model_id: In the registry.
        registry: The bus.
        **more: The measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_model_registered(name="digits-mlp", version=3)
    """
    where = {"name": name, "version": version, "model_id": model_id}
    send(("model", "registered"), measurements, NOTHING, more, metadata, where, registry)
