"""Emit helpers: one function for each event of the catalogue that a training loop emits.

Each takes measurements and metadata as two mappings by position, as `execute` does, or by keyword,
or both; what is given by keyword wins, and None is not given. What the event's row in the catalogue
has is a keyword of the signature. Of the others, those that say where something was are metadata of
whatever event: ``step``, ``total_steps``, ``epoch``, ``total_epochs``, ``batch_idx``, ``run_id``,
``attempt``, ``user_id``. They are checked, whoever listens. All the rest are measurements.

Scalars of a device are handed over as they are: nobody waits for them. ``registry=`` is the bus, by
default that of the functions of `telemetry`.
"""

from telemetry.emit.datasets import emit_dataset_batch, emit_dataset_load
from telemetry.emit.models import emit_eval_complete, emit_model_registered
from telemetry.emit.performance import emit_performance, time_operation
from telemetry.emit.rl import emit_rl_step
from telemetry.emit.training import (
    emit_checkpoint,
    emit_epoch,
    emit_eval,
    emit_step,
    emit_timing,
)

__all__ = [
    "emit_checkpoint",
    "emit_dataset_batch",
    "emit_dataset_load",
    "emit_epoch",
    "emit_eval",
    "emit_eval_complete",
    "emit_model_registered",
    "emit_performance",
    "emit_rl_step",
    "emit_step",
    "emit_timing",
    "time_operation",
]
