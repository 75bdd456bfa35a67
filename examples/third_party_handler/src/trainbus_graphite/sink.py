"""Measurements as lines of Graphite's plaintext protocol.

https://graphite.readthedocs.io/en/latest/feeding-carbon.html#the-plaintext-protocol
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from handlers import Losses, Retrying, Site, TimedEvent, countable, event_time_ns
from telemetry import EventName
from telemetry.metrics import Metric, Reporter, check_metrics, tracking

TIMEOUT: Final = 3.0
"""Seconds for a connection, and for handing a batch to it."""
HIGHEST_PORT: Final = 65_535

_WORDS: Final = {str: "a string", int: "an integer"}
_NOT_IN_PATHS: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class Graphite:
    """A sink that writes one line for each measurement.

    Args:
        site: Where it is attached.
        host: Where Graphite listens.
        port: On which TCP port.
        prefix: What all paths begin with.
        metrics: What is reported.
    """

    delivery = "background"  # it waits for a network, which no training loop should

    def __init__(
        self, site: Site, *, host: str, port: int, prefix: str, metrics: Iterable[Metric]
    ) -> None:
        self._address = (host, port)
        self._prefix = f"{prefix}." if prefix else ""
        self._reporter = Reporter(metrics)
        self._odd = Losses(site, "not_finite")
        self._unsent = Losses(site, "no_connection")
        self._retrying = Retrying(
            site, f"Graphite at {host}:{port}", passes=_passes, losses=self._unsent
        )

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Send one event: for those who attach it with ``background=False``."""
        self.deliver_many([TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))])

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Send what came."""
        data = "".join(line for entry in batch for line in self._lines(entry)).encode()
        if data:
            self._retrying(partial(self._send, data), size=countable(batch))

    def close(self) -> None:
        """Say how much could not be sent."""
        self._odd.announce_rest()
        self._unsent.announce_rest()

    def _lines(self, entry: TimedEvent) -> Iterator[str]:
        for sample in self._reporter.sampled(entry.event, entry.measurements, entry.metadata):
            if math.isfinite(sample.value):
                path = _NOT_IN_PATHS.sub("_", self._prefix + sample.name)
                yield f"{path} {sample.value!r} {entry.time_ns // 10**9}\n"
            else:
                self._odd.add(1, "Graphite knows no NaN and no infinity")

    def _send(self, data: bytes) -> None:
        # A connection for each batch: a forked child has none of its parent's to share.
        with socket.create_connection(self._address, TIMEOUT) as connection:
            connection.sendall(data)


def create(
    site: Site,
    *,
    host: str = "127.0.0.1",
    port: int = 2003,
    prefix: str = "",
    metrics: Iterable[Metric] | None = None,
) -> Graphite:
    """Make the handler ``graphite``.

    Args:
        site: Where it is attached.
        host: Where Graphite listens.
        port: On which TCP port.
        prefix: What all paths begin with.
        metrics: What to report, by default `telemetry.metrics.tracking`.

    Raises:
        TypeError: An option of a wrong type.
        ValueError: ``host`` is empty, or ``port`` is none.
    """
    _check_type(site, "host", host, str)
    _check_type(site, "port", port, int)
    _check_type(site, "prefix", prefix, str)
    if not host:
        raise ValueError(
            f"Handler {site.handler_id!r}: host must name a machine, got {host!r}. "
            "Write host='127.0.0.1'."
        )
    if not 0 < port <= HIGHEST_PORT:
        raise ValueError(
            f"Handler {site.handler_id!r}: port must be from 1 to {HIGHEST_PORT}, got {port!r}."
        )
    definitions = tracking() if metrics is None else check_metrics(metrics)
    return Graphite(site, host=host, port=port, prefix=prefix, metrics=definitions)


def _check_type(site: Site, option: str, value: object, expected: type) -> None:
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TypeError(
            f"Handler {site.handler_id!r}: {option} must be {_WORDS[expected]}, got {value!r} "
            f"({type(value).__name__})."
        )


def _passes(error: Exception) -> float | None:
    """What waiting may mend: everything that the network says."""
    return 0.0 if isinstance(error, OSError) else None
