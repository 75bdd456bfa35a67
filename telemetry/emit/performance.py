"""Events of the machine's speed: samples, and operations that are timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.arguments import check_name
from telemetry.emit.send import Number, check_places, send
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.spans import NOTHING, Span


def emit_performance(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    queue_depth: int | None = None,
    cpu_utilization: Number | None = None,
    memory_used_gb: Number | None = None,
    memory_utilization: Number | None = None,
    process_cpu_utilization: Number | None = None,
    process_memory_gb: Number | None = None,
    gpu_utilization: Number | None = None,
    gpu_memory_used_gb: Number | None = None,
    forward_backward_duration_ms: Number | None = None,
    optim_step_duration_ms: Number | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``performance.sample``: the machine was looked at.

    `telemetry.poller` emits it at an interval.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        queue_depth: Waiting requests.
        cpu_utilization: Of the host, 0 to 100.
        memory_used_gb: Memory of the host in use, in GB.
        memory_utilization: The same, 0 to 100.
        process_cpu_utilization: Of this process, 100 a core.
        process_memory_gb: Resident memory of this process, in GB.
        gpu_utilization: 0 to 100, the mean of all GPUs.
        gpu_memory_used_gb: Memory in use, the sum of all GPUs, in GB.
        forward_backward_duration_ms: Of a forward and backward pass, in milliseconds.
        optim_step_duration_ms: Of an optimizer step, in milliseconds.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_performance(queue_depth=3, gpu_utilization=95.5)
    """
    known = {
        "queue_depth": queue_depth,
        "cpu_utilization": cpu_utilization,
        "memory_used_gb": memory_used_gb,
        "memory_utilization": memory_utilization,
        "process_cpu_utilization": process_cpu_utilization,
        "process_memory_gb": process_memory_gb,
        "gpu_utilization": gpu_utilization,
        "gpu_memory_used_gb": gpu_memory_used_gb,
        "forward_backward_duration_ms": forward_backward_duration_ms,
        "optim_step_duration_ms": optim_step_duration_ms,
    }
    send(("performance", "sample"), measurements, known, more, metadata, NOTHING, registry)


def time_operation(
    operation: str, *, registry: Registry = default_registry, **metadata: Any
) -> Span:
    """The span ``performance.operation`` of something worth timing.

    For ``with``, ``async with`` or as a decorator. Its duration is reported as
    ``performance.<operation>_duration_ms``.

    Args:
        operation: Its name, such as ``"forward_backward"``.
        registry: The bus.
        **metadata: Anything else that its events shall carry.

    Raises:
        TypeError: The name is no string, a step, an epoch or the name of a run is of the wrong
            type, or the bus is none.
        ValueError: The name is empty, or a step or an epoch is negative or not whole.

    Example:
        >>> import telemetry
        >>> with telemetry.time_operation("forward_backward"):
        ...     pass
    """
    if metadata:
        check_places(metadata)
    return Span(
        check_registry(registry),
        ("performance", "operation"),
        {**metadata, "operation": check_name("operation", operation)},
    )
