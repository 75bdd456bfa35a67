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
from handlers.losses import Losses
from handlers.records import Closeable, Delivery, Flushable, Overflow, Ranks, Sink, Site
from handlers.sink_attachment import SinkAttachment

__all__ = [
    "Closeable",
    "Delivery",
    "Flushable",
    "Losses",
    "Overflow",
    "Ranks",
    "Sink",
    "SinkAttachment",
    "Site",
    "attach",
    "event_time_ns",
]
