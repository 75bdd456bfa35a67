"""The ``on_metrics`` callback: called once per group, and treated like a handler when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import telemetry
from clipping.records import OnMetrics

HANDLER_ID: Final = "clipping.on_metrics"
FAILURE: Final = ("telemetry", "handler", "failure")


class Listener:
    """A callback that hears one clipper.

    When it raises, that is announced and logged like the failure of a handler.

    Args:
        on_metrics: Called with a `MetricsRecord`. What it raises goes no further, and it is not
            called again by this listener.

    Raises:
        TypeError: It is not callable.
    """

    def __init__(self, on_metrics: OnMetrics) -> None:
        if not callable(on_metrics):
            raise TypeError(
                f"on_metrics must be a function of one record, got {on_metrics!r} "
                f"({type(on_metrics).__name__}). Leave it out to have no callback."
            )
        self._on_metrics = on_metrics
        self._failed = False

    def tell(
        self, event: telemetry.EventName, measurements: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Call the callback, unless it has failed before."""
        if self._failed:
            return
        record: Any = {**{name: about[name] for name in ("algo", "key", "scope")}, **measurements}
        try:
            self._on_metrics(record)
        except Exception as error:
            self._failed = True
            _fail(self._on_metrics, event, error)


def _fail(on_metrics: OnMetrics, event: telemetry.EventName, error: Exception) -> None:
    """What the bus does with a handler that raises, on a bus where it is the only one."""
    bus = telemetry.Registry()
    bus.attach("announce", FAILURE, _announce)
    bus.attach(HANDLER_ID, event, lambda *_: None, config=on_metrics).fail(event, error)


def _announce(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    _config: None,
) -> None:
    telemetry.execute(event, measurements, metadata)
