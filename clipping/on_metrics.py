"""The ``on_metrics`` callback: called once per group, and treated like a handler when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import telemetry
from clipping.records import OnMetrics

HANDLER_ID: Final = "clipping.on_metrics"
FAILURE: Final = ("telemetry", "handler", "failure")


class Listener:
    """A callback on a bus of its own, so that it hears one clipper and nobody hears it.

    That bus detaches it when it raises, and logs; the announcement is passed on to everybody.

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
        self._bus = telemetry.Registry()
        self._bus.attach(HANDLER_ID, telemetry.ALL, _deliver, config=on_metrics)
        self._bus.attach("announce", FAILURE, _announce)

    def tell(
        self, event: telemetry.EventName, measurements: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Call the callback, unless it has failed before."""
        self._bus.execute(event, measurements, about)


def _deliver(
    _event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    on_metrics: Any,
) -> None:
    about = {name: metadata[name] for name in ("algo", "key", "scope")}
    on_metrics({**about, **measurements})


def _announce(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    _config: None,
) -> None:
    telemetry.execute(event, measurements, metadata)
