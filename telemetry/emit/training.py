"""Events of a training loop: steps, their times, epochs, checkpoints, evaluations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from telemetry.ambient import ambient_metadata
from telemetry.arguments import check_name
from telemetry.emit.send import Number, send
from telemetry.registry import Registry, default_registry
from telemetry.spans import NOTHING


def emit_step(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    loss: Number | None = None,
    lr: Number | None = None,
    grad_norm: Number | None = None,
    step: int | None = None,
    total_steps: int | None = None,
    epoch: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``training.step``: an optimizer step was made.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        loss: Training loss.
        lr: Learning rate.
        grad_norm: L2 norm of the gradient.
        step: Counted from 1; by default that of the `context` around, as `track` sets it.
        total_steps: Of the whole run.
        epoch: Counted from 1; by default that of the `context` around.
        registry: The bus.
        **more: Other measurements, such as ``perplexity=5.2``.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> with telemetry.testing.capture() as events:
        ...     telemetry.emit_step(loss=2.5432, lr=2e-4, step=1, total_steps=1000)
        ...     telemetry.emit_step({"loss": 2.4123}, {"step": 2})
        >>> events[0].measurements, events[0].metadata
        ({'loss': 2.5432, 'lr': 0.0002}, {'step': 1, 'total_steps': 1000})
    """
    known = {"loss": loss, "lr": lr, "grad_norm": grad_norm}
    where = {"step": step, "total_steps": total_steps, "epoch": epoch}
    send(("training", "step"), measurements, known, more, metadata, where, registry)


def emit_timing(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    step_duration: int | None = None,
    data_duration: int | None = None,
    batch_size: int | None = None,
    samples_per_second: Number | None = None,
    step: int | None = None,
    total_steps: int | None = None,
    epoch: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``training.timing``: how long an optimizer step took.

    `track` and the callbacks of the frameworks emit it by themselves.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        step_duration: Of the step, waiting for its data included, in nanoseconds.
        data_duration: Of waiting for its data, in nanoseconds.
        batch_size: Items, of all its batches.
        samples_per_second: Items by ``step_duration``.
        step: Counted from 1; by default that of the `context` around.
        total_steps: Of the whole run.
        epoch: Counted from 1; by default that of the `context` around.
        registry: The bus.
        **more: Other measurements, such as ``tokens_per_second=1500``.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_timing(step_duration=250_000_000, samples_per_second=128.0, step=1)
    """
    known = {
        "step_duration": step_duration,
        "data_duration": data_duration,
        "batch_size": batch_size,
        "samples_per_second": samples_per_second,
    }
    where = {"step": step, "total_steps": total_steps, "epoch": epoch}
    send(("training", "timing"), measurements, known, more, metadata, where, registry)


def emit_epoch(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    epoch_loss: Number | None = None,
    epoch: int | None = None,
    total_epochs: int | None = None,
    step: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``training.epoch``: an epoch has ended.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        epoch_loss: Mean training loss.
        epoch: Counted from 1; by default that of the `context` around.
        total_epochs: Of the whole run.
        step: The last optimizer step of it.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_epoch(epoch_loss=1.3, epoch=1, total_epochs=3)
    """
    where = {"epoch": epoch, "total_epochs": total_epochs, "step": step}
    send(
        ("training", "epoch"),
        measurements,
        {"epoch_loss": epoch_loss},
        more,
        metadata,
        where,
        registry,
    )


def emit_checkpoint(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    size_bytes: int | None = None,
    checkpoint_name: str | None = None,
    path: str | os.PathLike[str] | None = None,
    step: int | None = None,
    epoch: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``training.checkpoint``: a checkpoint was saved.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        size_bytes: On disk.
        checkpoint_name: Its name.
        path: Where it was saved.
        step: At which optimizer step; by default that of the `context` around.
        epoch: In which epoch; likewise.
        registry: The bus.
        **more: Other measurements.

    Raises:
        TypeError: A mapping is none, or a step, an epoch or the name of a run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_checkpoint(checkpoint_name="epoch_1", path="epoch_1.pt", size_bytes=4096)
    """
    where = {"checkpoint_name": checkpoint_name, "path": path, "step": step, "epoch": epoch}
    known = {"size_bytes": size_bytes}
    send(("training", "checkpoint"), measurements, known, more, metadata, where, registry)


def emit_eval(
    measurements: Mapping[str, Number] = NOTHING,
    metadata: Mapping[str, Any] | None = None,
    /,
    *,
    split: str | None = None,
    step: int | None = None,
    epoch: int | None = None,
    registry: Registry = default_registry,
    **more: Number,
) -> None:
    """Emit ``training.eval``: a split was evaluated.

    Args:
        measurements: Those of the event, as a mapping.
        metadata: Likewise.
        split: ``"val"``, ``"test"``, ...; measurements are reported under it, as ``val.loss``. By
            default that of the `context` around; one of the two has to tell.
        step: At which optimizer step; by default that of the `context` around.
        epoch: In which epoch; likewise.
        registry: The bus.
        **more: The measurements, such as ``loss=0.4, accuracy=0.9``.

    Raises:
        TypeError: A mapping is none, no split is given, or it, a step, an epoch or the name of a
            run is of the wrong type.
        ValueError: A step or an epoch is negative or not whole, or a name is empty.

    Example:
        >>> import telemetry
        >>> telemetry.emit_eval(split="val", step=100, loss=0.4, accuracy=0.9)
    """
    _check_split(metadata, split)
    where = {"split": split, "step": step, "epoch": epoch}
    send(("training", "eval"), measurements, NOTHING, more, metadata, where, registry)


def _check_split(metadata: Mapping[str, Any] | None, split: object) -> None:
    # Without one, its measurements would be reported as those of a split "?".
    if split is None and isinstance(metadata, Mapping):
        split = metadata.get("split")
    if split is None:
        split = (ambient_metadata() or NOTHING).get("split")
    if split is None:
        raise TypeError(
            "emit_eval must be told which split was evaluated, got none, and the context around "
            "tells none either. Write emit_eval(split='val', ...)."
        )
    check_name("split", split)
