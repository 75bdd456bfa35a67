"""Metrics, events and service checks to Datadog, or metrics to any StatsD server."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from handlers.clock import event_time_ns
from handlers.datadog_client import DatadogMetrics
from handlers.datadog_events import DEFAULT_EVENTS, messages, tags_of
from handlers.datadog_outlet import Outlet
from handlers.datadog_settings import Dialect, Options, TransportName, settings_of
from handlers.datadog_statements import Point, PointKind, Statement, Told
from handlers.each import take_each
from handlers.losses import is_announcement
from handlers.options import events_of
from handlers.records import Site, TimedEvent
from telemetry import EventName, Pattern
from telemetry.metrics import Kind, Metric, Reporter, check_metrics, last_value, monitoring
from telemetry.names import check_pattern, matches
from telemetry.ranks import rank

__all__ = ["Datadog", "DatadogMetrics", "create"]

_KINDS: Final[Mapping[Kind, PointKind]] = {
    "counter": "count",
    "last_value": "gauge",
    "sum": "count",
    "summary": "histogram",
    "distribution": "distribution",
}
MAX_NAMES: Final = 4096

logger = logging.getLogger("telemetry")


class Datadog:
    """A sink that sends what the definitions report, and some events as messages."""

    delivery = "background"
    idle_after = 1.0

    def __init__(
        self, outlet: Outlet, metrics: Iterable[Metric], dd_events: Sequence[Pattern]
    ) -> None:
        self._outlet = outlet
        self._reporter = Reporter(metrics)
        self._dd_events = dd_events
        self._chosen: dict[EventName, bool] = {}

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Send one event."""
        entry = TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))
        self.deliver_many([entry])

    def hears(self, event: EventName) -> bool:
        """Whether events of a name are measured, or told as events of Datadog."""
        return self._is_message(event) or self._reporter.reports(event)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Send several events, in as few datagrams as they fit into."""
        told: list[Told] = []
        error = take_each(batch, lambda entry: told.append(self._told(entry)))
        self._outlet.send(told)
        if error is not None:
            raise error

    def idle(self) -> bool:
        """Send the intervals that have ended; whether there are others."""
        return self._outlet.idle()

    def kept(self) -> int:
        """How many events of earlier deliveries wait for the end of their interval."""
        return self._outlet.kept()

    def flush(self) -> None:
        """Send what waits for the end of its interval."""
        self._outlet.flush()

    def where_to_look(self) -> str:
        """Where it sends, and a metric that a training step becomes."""
        return self._outlet.where_to_look("training.loss")

    def close(self) -> None:
        """Send what waits, and close the connection."""
        self._outlet.close()

    def _told(self, entry: TimedEvent) -> Told:
        return Told(list(self._statements(entry)), int(not is_announcement(entry.event)))

    def _statements(self, entry: TimedEvent) -> Iterator[Statement]:
        for sample in self._reporter.samples(entry.event, entry.measurements, entry.metadata):
            metric = sample.metric
            yield Point(
                _KINDS[metric.kind],
                sample.name,
                sample.value,
                tags_of(sample),
                metric.sampling_rate,
                entry.time_ns,
            )
        if self._is_message(entry.event):
            yield from messages(entry)

    def _is_message(self, event: EventName) -> bool:
        chosen = self._chosen.get(event)
        if chosen is None:
            chosen = any(matches(pattern, event) for pattern in self._dd_events)
            if len(self._chosen) < MAX_NAMES:
                self._chosen[event] = chosen
        return chosen


class Disabled:
    """What stands for the sink when it is switched off."""

    delivery = "direct"

    def __init__(self, because: str) -> None:
        self._because = because

    def why_silent(self) -> str:
        """Who switched it off."""
        return self._because

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Send nothing."""


def default_metrics() -> tuple[Metric, ...]:
    """What is reported unless ``metrics`` says otherwise.

    The defaults for monitoring, with the learning rate under its whole name.

    Example:
        >>> [m.report_as for m in default_metrics() if m.measurement == "lr"]
        ['training.learning_rate']
    """
    name = "training.learning_rate"
    rate = last_value("training.step.lr", report_as=name, tags=["run_id", "user_id"])
    return monitoring(rate)


def create(
    site: Site,
    *,
    host: str | None = None,
    port: int | None = None,
    socket_path: str | None = None,
    transport: TransportName | None = None,
    api_key: str | None = None,
    app_key: str | None = None,
    api_host: str | None = None,
    namespace: str | None = None,
    tags: Iterable[str] = (),
    dialect: Dialect = "datadog",
    sample_rate: float = 1.0,
    max_tag_values: int = 1000,
    metrics: Iterable[Metric] | None = None,
    dd_events: Iterable[Pattern] | None = None,
    enabled: bool | None = None,
) -> Datadog | Disabled:
    """Make the handler ``datadog``.

    An option that is left out comes from a variable; of two, Datadog's whole name wins over DD.

    Args:
        site: Where it is attached.
        host: Where the agent listens, by default ``DD_AGENT_HOST`` or localhost.
        port: On which UDP port, by default ``DD_DOGSTATSD_PORT`` or 8125.
        socket_path: Its Unix socket, instead of both; by default ``DD_DOGSTATSD_URL`` or
            ``DD_DOGSTATSD_SOCKET``.
        transport: ``"agent"``, or ``"api"`` for Datadog's HTTP API where there is no agent. By
            default the API if ``api_key``, ``api_host`` or ``DATADOG_API_KEY`` is given and no
            agent's address is, by an option or a variable.
        api_key: Of the HTTP API, by default ``DATADOG_API_KEY`` or ``DD_API_KEY``.
        app_key: Likewise ``DATADOG_APP_KEY`` or ``DD_APP_KEY``. Sending does not need it.
        api_host: The HTTP API's URL, by default ``DATADOG_HOST`` or that of ``DD_SITE``.
        namespace: What the names of metrics begin with.
        tags: What everything is tagged with, beside ``DATADOG_TAGS``, ``DD_ENV``, ``DD_SERVICE``,
            ``DD_VERSION``, ``DD_ENTITY_ID`` and ``DD_TAGS``.
        dialect: ``"datadog"``, or ``"statsd"`` for other StatsD servers: no tags, no messages.
        sample_rate: The probability with which each value is sent.
        max_tag_values: How many values a tag may have; further ones are sent as ``other``.
        metrics: What is reported, by default `default_metrics`.
        dd_events: Patterns of the events that are Datadog events as well, by default alerts, failed
            runs and stages, checkpoints and registered models. () for none.
        enabled: False attaches a handler that sends nothing; by default as ``DATADOG_ENABLED``
            says, or True. ``DD_DOGSTATSD_DISABLE`` switches sending to an agent off in any case.

    Raises:
        MissingExtraError: The package datadog is not installed.
        TypeError: An option is of a wrong type.
        ValueError: An option or a variable has a wrong value.

    Example:
        >>> import handlers
        >>> with handlers.attach("datadog", namespace="signal", enabled=False) as datadog:
        ...     datadog.active
        True
    """
    options = Options(
        host=host,
        port=port,
        socket_path=socket_path,
        transport=transport,
        api_key=api_key,
        app_key=app_key,
        api_host=api_host,
        namespace=namespace,
        tags=tags,
        dialect=dialect,
        sample_rate=sample_rate,
        max_tag_values=max_tag_values,
        enabled=enabled,
    )
    settings = settings_of(site.handler_id, options)
    definitions = default_metrics() if metrics is None else check_metrics(metrics)
    defaults = () if dialect == "statsd" else DEFAULT_EVENTS
    patterns = defaults if dd_events is None else events_of(dd_events)
    chosen = tuple(check_pattern(pattern) for pattern in patterns)
    if site.ranks == "all" and not any(tag.startswith("rank:") for tag in settings.tags):
        # Or they would overwrite each other's gauges, and each other's sums over the API.
        settings = replace(settings, tags=(*settings.tags, f"rank:{rank() or 0}"))
    if settings.disabled:
        logger.info("Handler %r sends nothing: %s.", site.handler_id, settings.disabled)
        return Disabled(settings.disabled)
    return Datadog(Outlet(site, settings), definitions, chosen)
