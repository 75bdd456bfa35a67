"""What happens when a handler raises: announced once, logged, and never more than that."""

from __future__ import annotations

import threading
import time
from traceback import StackSummary, walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from telemetry.registry import Registry
    from telemetry.table import Handler

from telemetry.log import log_error
from telemetry.records import EventName

FAILURE: Final[EventName] = ("telemetry", "handler", "failure")


class _Thread(threading.local):
    # Not a context variable: a task that a failure handler starts would inherit it for ever.
    announcing = False


_thread = _Thread()


def announce(registry: Registry, handler: Handler, event: EventName, error: Exception) -> None:
    """Emit the failure event, unless one is being handled already, then log."""
    if event != FAILURE and not _thread.announcing:
        _thread.announcing = True
        try:
            registry.execute(FAILURE, *_describe(handler, event, error))
        finally:
            _thread.announcing = False
    log_error(
        error,
        "Handler %r failed on event %s and %s: %r",
        handler.id,
        ".".join(event),
        "was detached" if handler.on_failure == "detach" else "stays attached",
        error,
    )


def stack_of(traceback: TracebackType | None) -> StackSummary:
    """The frames of a traceback; their source lines are read only when somebody looks at them."""
    return StackSummary.extract(walk_tb(traceback), lookup_lines=False)


def _describe(
    handler: Handler, event: EventName, error: Exception
) -> tuple[dict[str, Any], dict[str, Any]]:
    measurements = {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()}
    metadata = {
        "event_name": event,
        "handler_id": handler.id,
        "handler_config": handler.config,
        "kind": "error",
        "reason": error,
        "stacktrace": stack_of(error.__traceback__),
    }
    return measurements, metadata
