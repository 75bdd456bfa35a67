"""What happens when a probe fails: announced once, logged once, until it has worked again."""

from __future__ import annotations

import time
from typing import Final

from telemetry.failure import stack_of
from telemetry.log import log_error
from telemetry.poller.probes import Probe
from telemetry.records import EventName
from telemetry.registry import Registry
from telemetry.values.jsonable import bounded_repr

PROBE_FAILURE: Final[EventName] = ("telemetry", "probe", "failure")


class Failures:
    """Which probes have failed and not worked since.

    Args:
        registry: The bus.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._failing: set[str] = set()

    def works(self, probe: Probe) -> None:
        """A probe has answered: its next failure is news."""
        self._failing.discard(probe.name)

    def fails(self, probe: Probe, error: BaseException) -> None:
        """A probe has raised; it goes on being asked."""
        if probe.name in self._failing:
            return
        self._failing.add(probe.name)
        try:
            self._registry.execute(
                PROBE_FAILURE,
                {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()},
                {
                    "probe": probe.name,
                    "kind": "error" if isinstance(error, Exception) else "exit",
                    "reason": error,
                    "stacktrace": stack_of(error.__traceback__),
                },
            )
        finally:
            log_error(
                error,
                "Probe %s of the poller failed, and goes on being asked: %s. Said again only after "
                "it has worked.",
                bounded_repr(probe.name),
                bounded_repr(error),
            )
