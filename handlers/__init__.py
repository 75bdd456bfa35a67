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
from handlers.lifecycle import detach_all
from handlers.losses import Losses, countable
from handlers.patience import given_up
from handlers.records import (
    Batching,
    Checkable,
    Closeable,
    Delivery,
    Describing,
    Flushable,
    Idling,
    Keeping,
    Overflow,
    Ranks,
    Selective,
    Silenceable,
    Sink,
    Site,
    TimedEvent,
)
from handlers.retrying import Retrying
from handlers.secrets import Secrets
from handlers.sink_attachment import SinkAttachment

__all__ = [
    "Batching",
    "Checkable",
    "Closeable",
    "CredentialsError",
    "Delivery",
    "DeliveryError",
    "Describing",
    "Flushable",
    "Idling",
    "Keeping",
    "Losses",
    "Overflow",
    "Ranks",
    "Retrying",
    "Secrets",
    "Selective",
    "Silenceable",
    "Sink",
    "SinkAttachment",
    "Site",
    "TimedEvent",
    "attach",
    "countable",
    "detach_all",
    "event_time_ns",
    "given_up",
]
