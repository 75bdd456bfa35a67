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

from telemetry import events, extras, metrics, ranks, signals, testing, values
from telemetry.ambient import context
from telemetry.attachment import Attachment
from telemetry.errors import (
    HandlerExistsError,
    HandlerNotFoundError,
    MissingExtraError,
    ShadowedPackageError,
)
from telemetry.names import ALL
from telemetry.records import Event, EventName, HandlerFunction, HandlerInfo, Pattern
from telemetry.registry import Registry, default_registry
from telemetry.span_context import SpanContext
from telemetry.spans import Span

__all__ = [
    "ALL",
    "Attachment",
    "Event",
    "EventName",
    "HandlerExistsError",
    "HandlerFunction",
    "HandlerInfo",
    "HandlerNotFoundError",
    "MissingExtraError",
    "Pattern",
    "Registry",
    "ShadowedPackageError",
    "Span",
    "SpanContext",
    "attach",
    "attach_many",
    "context",
    "default_registry",
    "detach",
    "enabled",
    "events",
    "execute",
    "extras",
    "list_handlers",
    "metrics",
    "ranks",
    "signals",
    "span",
    "start_span",
    "testing",
    "values",
]

attach = default_registry.attach
attach_many = default_registry.attach_many
detach = default_registry.detach
execute = default_registry.execute
span = default_registry.span
start_span = default_registry.start_span
list_handlers = default_registry.list_handlers
enabled = default_registry.enabled
