"""Sinks: what becomes of the events on the bus.

Example:
    >>> import handlers, telemetry
    >>> with handlers.attach("memory", events=[("training", "*")]) as memory:
    ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
    >>> len(memory.handler.events)
    1
"""

from handlers.attach import attach
from handlers.clock import event_time_ns
from handlers.errors import CredentialsError, DeliveryError
from handlers.losses import Losses
from handlers.records import (
    Batching,
    Closeable,
    Delivery,
    Flushable,
    Idling,
    Overflow,
    Ranks,
    Sink,
    Site,
    TimedEvent,
)
from handlers.retrying import Retrying
from handlers.secrets import Secrets
from handlers.sink_attachment import SinkAttachment

__all__ = [
    "Batching",
    "Closeable",
    "CredentialsError",
    "Delivery",
    "DeliveryError",
    "Flushable",
    "Idling",
    "Losses",
    "Overflow",
    "Ranks",
    "Retrying",
    "Secrets",
    "Sink",
    "SinkAttachment",
    "Site",
    "TimedEvent",
    "attach",
    "event_time_ns",
]
