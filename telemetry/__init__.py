"""An event bus for machine-learning training, with the manners of Erlang's ``:telemetry``.

Emitters say what happened, handlers decide what becomes of it, and neither knows the other.

Example:
    >>> import telemetry
    >>> def handle(event, measurements, metadata, config):
    ...     print(".".join(event), measurements["loss"], metadata["step"])
    >>> attachment = telemetry.attach("printer", ("training", "step"), handle)
    >>> telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
    training.step 2.5 1
    >>> telemetry.detach("printer")
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from telemetry import events, extras, metrics, ranks, signals, testing, values
from telemetry.ambient import context
from telemetry.attachment import Attachment
from telemetry.collector import MetricsCollector, create_metrics_collector
from telemetry.emit import (
    emit_checkpoint,
    emit_dataset_batch,
    emit_dataset_load,
    emit_epoch,
    emit_eval,
    emit_eval_complete,
    emit_model_registered,
    emit_performance,
    emit_rl_step,
    emit_step,
    emit_timing,
    time_operation,
)
from telemetry.errors import (
    HandlerExistsError,
    HandlerNotFoundError,
    MissingExtraError,
    ShadowedPackageError,
)
from telemetry.loops import Track, track
from telemetry.names import ALL
from telemetry.records import Event, EventName, HandlerFunction, HandlerInfo, Pattern
from telemetry.registry import Registry, default_registry
from telemetry.runs import StageRun, WorkflowRun, next_attempt, stage_run, workflow_run
from telemetry.span_context import SpanContext
from telemetry.spans import Span

if TYPE_CHECKING:
    from telemetry import alerts, integrations, poller

__all__ = [
    "ALL",
    "Attachment",
    "Event",
    "EventName",
    "HandlerExistsError",
    "HandlerFunction",
    "HandlerInfo",
    "HandlerNotFoundError",
    "MetricsCollector",
    "MissingExtraError",
    "Pattern",
    "Registry",
    "ShadowedPackageError",
    "Span",
    "SpanContext",
    "StageRun",
    "Track",
    "WorkflowRun",
    "alerts",
    "attach",
    "attach_many",
    "context",
    "create_metrics_collector",
    "default_registry",
    "detach",
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
    "enabled",
    "events",
    "execute",
    "extras",
    "integrations",
    "list_handlers",
    "metrics",
    "next_attempt",
    "poller",
    "ranks",
    "signals",
    "span",
    "stage_run",
    "start_span",
    "testing",
    "time_operation",
    "track",
    "values",
    "workflow_run",
]

attach = default_registry.attach
attach_many = default_registry.attach_many
detach = default_registry.detach
execute = default_registry.execute
span = default_registry.span
start_span = default_registry.start_span
list_handlers = default_registry.list_handlers
enabled = default_registry.enabled

_ON_FIRST_USE = ("alerts", "integrations", "poller")
"""Parts that a program which only emits shall not pay for."""


def __getattr__(name: str) -> ModuleType:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"telemetry.{name}")
    raise AttributeError(f"module 'telemetry' has no attribute {name!r}")
