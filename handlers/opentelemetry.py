"""Spans, metrics and log records for OpenTelemetry: over OTLP, or to providers of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from handlers.options import check_count, check_seconds
from handlers.otlp_settings import SIGNALS, Settings, settings_of
from handlers.records import Site
from telemetry import Pattern
from telemetry.extras import import_extra
from telemetry.metrics import Metric, Reporter, check_metrics, monitoring

if TYPE_CHECKING:
    from handlers.otel_sink import OpenTelemetry, Outlet


def create(
    site: Site,
    *,
    endpoint: str | None = None,
    signals: Iterable[str] = SIGNALS,
    headers: Mapping[str, str] | None = None,
    service_name: str | None = None,
    resource: Mapping[str, Any] | None = None,
    timeout: float = 3.0,
    export_interval: float = 5.0,
    tracer_provider: Any = None,
    meter_provider: Any = None,
    logger_provider: Any = None,
    metrics: Iterable[Metric] | None = None,
    logs: Iterable[Pattern] | None = None,
    max_series: int = 1000,
) -> OpenTelemetry:
    """Make the handler ``opentelemetry``.

    What it sends: https://opentelemetry.io/docs/specs/otlp/#otlphttp. Where an option is not
    given, the variables ``OTEL_EXPORTER_OTLP_*``, ``OTEL_SERVICE_NAME`` and
    ``OTEL_RESOURCE_ATTRIBUTES`` count.

    Args:
        site: Where it is attached.
        endpoint: URL of an OTLP/HTTP endpoint, without the paths ``/v1/traces`` and so on.
        signals: What to send there: ``"traces"``, ``"metrics"``, ``"logs"``.
        headers: To send with each request, such as credentials.
        service_name: Name of what is sending, by default ``"trainbus"``.
        resource: Further attributes of what is sending.
        timeout: Seconds for one request.
        export_interval: Seconds between two exports.
        tracer_provider: In place of an endpoint, a provider of the program's, which gets the
            spans and is never shut down here.
        meter_provider: Likewise, for the metrics.
        logger_provider: Likewise, for the log records.
        metrics: What is reported, by default ``telemetry.metrics.monitoring()``.
        logs: Patterns of the events that become log records. By default those of the catalogue
            that do not come at each step, and those that neither a span nor a metric is made of.
        max_series: How many sets of values its tags may have for one metric.

    Raises:
        MissingExtraError: The SDK or the exporter is not installed.
        TypeError: An option of a wrong type.
        ValueError: An option of a wrong value, or an endpoint and a provider.

    Example:
        >>> import handlers, telemetry
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> kept, provider = InMemorySpanExporter(), TracerProvider()
        >>> provider.add_span_processor(SimpleSpanProcessor(kept))
        >>> with handlers.attach("opentelemetry", tracer_provider=provider):
        ...     with telemetry.span(("stage", "run"), {"stage": "prepare"}):
        ...         pass
        >>> [(span.name, span.attributes["stage"]) for span in kept.get_finished_spans()]
        [('stage.run', 'prepare')]
    """
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        import_extra(module, extra="opentelemetry", feature="The handler 'opentelemetry'")
    from handlers.otel_logs import wanted  # noqa: PLC0415 -- imports the vendor
    from handlers.otel_sink import GivenProviders, OpenTelemetry  # noqa: PLC0415 -- as above

    check_count(f"Handler {site.handler_id!r}: max_series", max_series)
    check_seconds(f"Handler {site.handler_id!r}: timeout", timeout)
    check_seconds(f"Handler {site.handler_id!r}: export_interval", export_interval)
    reporter = Reporter(monitoring() if metrics is None else check_metrics(metrics))
    patterns = None if logs is None else tuple(logs)
    if patterns is not None:
        wanted(patterns)
    providers = (tracer_provider, meter_provider, logger_provider)
    outlet: Outlet
    renew: Callable[[], Outlet] | None = None
    if any(provider is not None for provider in providers):
        _check_providers(site, providers)
        _check_no_endpoint(
            site,
            endpoint=endpoint,
            headers=headers,
            service_name=service_name,
            resource=resource,
        )
        outlet = GivenProviders(*providers)
    else:
        settings = settings_of(
            site,
            endpoint=endpoint,
            signals=_check_signals(site, signals),
            headers=headers,
            service_name=service_name,
            resource=resource,
            timeout=timeout,
            interval=export_interval,
        )
        renew = partial(_pipeline, site, settings)
        outlet = renew()
    return OpenTelemetry(
        site, reporter=reporter, logs=patterns, max_series=max_series, outlet=outlet, renew=renew
    )


def _pipeline(site: Site, settings: Settings) -> Outlet:
    from handlers.otlp import Pipeline  # noqa: PLC0415 -- imports the vendor

    return Pipeline(site, settings)


def _check_signals(site: Site, signals: Any) -> tuple[str, ...]:
    listed = isinstance(signals, Iterable) and not isinstance(signals, str)
    given: tuple[Any, ...] = tuple(signals) if listed else ()
    if not given or any(signal not in SIGNALS for signal in given):
        raise ValueError(
            f"Handler {site.handler_id!r}: signals must be a list of some of {SIGNALS!r}, got "
            f"{signals!r}."
        )
    return tuple(dict.fromkeys(given))


def _check_providers(site: Site, providers: tuple[Any, Any, Any]) -> None:
    from opentelemetry import _logs, metrics, trace  # noqa: PLC0415 -- the vendor

    kinds = (trace.TracerProvider, metrics.MeterProvider, _logs.LoggerProvider)
    names = ("tracer_provider", "meter_provider", "logger_provider")
    for name, provider, kind in zip(names, providers, kinds, strict=True):
        if not isinstance(provider, kind | None):
            raise TypeError(
                f"Handler {site.handler_id!r}: {name} must be a {kind.__name__} of OpenTelemetry, "
                f"got {provider!r} ({type(provider).__name__})."
            )


def _check_no_endpoint(site: Site, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"Handler {site.handler_id!r}: {name} is for an endpoint, and providers were "
                f"given, which have their own. Leave out {name}, or the providers."
            )
