"""Signals of the bus's own life, for whoever manages handlers.

They are `blinker <https://blinker.readthedocs.io>`_ signals: rare events, with receivers held by
weak references. The sender is the registry, the keyword arguments are named below. A receiver that
raises is logged and the others still run.

Example:
    >>> import telemetry
    >>> def announce(registry, handler_id):
    ...     print("attached", handler_id)
    >>> with telemetry.signals.handler_attached.connected_to(announce):
    ...     attachment = telemetry.attach("demo", ("training", "step"), lambda *event: None)
    attached demo
    >>> attachment.detach()
"""

from __future__ import annotations

from typing import Any

from blinker import Signal

from telemetry.log import log_error

__all__ = ["handler_attached", "handler_detached", "handler_failed"]

handler_attached = Signal("handler_id: it hears events from now on")
handler_detached = Signal("handler_id: it was detached, by a call or by its own failure")
handler_failed = Signal("handler_id, error: the exception that the handler raised")


def notify(signal: Signal, sender: object, **message: Any) -> None:
    """Call the receivers one by one; ``Signal.send`` would stop at the first that raises."""
    if signal.is_muted:
        return
    for receiver in tuple(signal.receivers_for(sender)):
        try:
            receiver(sender, **message)
        except Exception as error:
            log_error(error, "Receiver %r of a telemetry signal failed: %r", receiver, error)
