"""Where an OTLP endpoint is, and who is sending: from options, or OpenTelemetry's variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult

from handlers.http_headers import check_headers
from handlers.records import Site
from handlers.secrets import Secrets, check_url, parts_of_header, parts_of_url
from telemetry.ranks import rank

SIGNALS: Final = ("traces", "metrics", "logs")
DEFAULT_ENDPOINT: Final = "http://localhost:4318"
EXAMPLE: Final = "http://127.0.0.1:4318"

_BASE: Final = "OTEL_EXPORTER_OTLP"


@dataclass(frozen=True)
class Settings:
    """What is needed to send.

    Attributes:
        endpoints: The URL of each signal.
        headers: Those that were given; OpenTelemetry's variables can have more.
        resource: Attributes of what is sending.
        timeout: Seconds for one request.
        interval: Seconds between two exports.
        secrets: What must not be shown.
    """

    endpoints: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    resource: Mapping[str, Any]
    timeout: float
    interval: float
    secrets: Secrets


def settings_of(
    site: Site,
    *,
    endpoint: object,
    signals: tuple[str, ...],
    headers: object,
    service_name: object,
    resource: object,
    timeout: float,
    interval: float,
) -> Settings:
    """Check the options, and add what OpenTelemetry's variables say.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/

    Raises:
        TypeError: An option of a wrong type.
        ValueError: An option or a variable of a wrong value.
    """
    endpoints = {signal: _endpoint(site, endpoint, signal) for signal in signals}
    given = check_headers(site, headers)
    secrets = Secrets(
        *(part for value in (*given.values(), *_of_variables()) for part in parts_of_header(value)),
        *(part for url in endpoints.values() for part in parts_of_url(url)),
    )
    return Settings(
        endpoints, given, _resource(site, service_name, resource), timeout, interval, secrets
    )


def _endpoint(site: Site, endpoint: object, signal: str) -> str:
    path = f"/v1/{signal}"
    if endpoint is not None:
        split = check_url(
            site.handler_id,
            endpoint,
            schemes=("http", "https"),
            example=EXAMPLE,
            option="endpoint",
        )
        if any(split.path.rstrip("/").endswith(f"/v1/{known}") for known in SIGNALS):
            raise ValueError(
                f"Handler {site.handler_id!r}: endpoint ends in the path of one signal. Give what "
                f"comes before it: endpoint={EXAMPLE!r}."
            )
        return _joined(split, path)
    variable = f"{_BASE}_{signal.upper()}_ENDPOINT"
    whole = os.environ.get(variable)
    if whole:
        _check_variable(site, variable, whole)
        return whole
    variable = f"{_BASE}_ENDPOINT"
    base = os.environ.get(variable) or DEFAULT_ENDPOINT
    return _joined(_check_variable(site, variable, base), path)


def _check_variable(site: Site, variable: str, url: str) -> Any:
    return check_url(
        site.handler_id, url, schemes=("http", "https"), example=EXAMPLE, option=variable
    )


def _joined(base: SplitResult, path: str) -> str:
    return base._replace(path=base.path.rstrip("/") + path).geturl()


def _of_variables() -> list[str]:
    """The values in OpenTelemetry's variables for headers: ``name=value,name=value``.

    Also of what is malformed, because the exporter's package logs that: ``name: value``.
    """
    names = (f"{_BASE}_HEADERS", *(f"{_BASE}_{signal.upper()}_HEADERS" for signal in SIGNALS))
    pairs = (pair for name in names for pair in os.environ.get(name, "").split(","))
    return [re.split("[=:]", pair, maxsplit=1)[-1].strip() for pair in pairs]


def _resource(site: Site, service_name: object, resource: object) -> dict[str, Any]:
    if not isinstance(service_name, str | None) or service_name == "":
        raise TypeError(
            f"Handler {site.handler_id!r}: service_name must be a string, got {service_name!r} "
            f"({type(service_name).__name__})."
        )
    given = {} if resource is None else resource
    if not isinstance(given, Mapping) or not all(
        isinstance(key, str) and isinstance(value, bool | int | float | str)
        for key, value in given.items()
    ):
        raise TypeError(
            f"Handler {site.handler_id!r}: resource must map names to strings or numbers, got "
            f"{resource!r} ({type(resource).__name__}). Write "
            "resource={'deployment.environment.name': 'production'}."
        )
    found: dict[str, Any] = {}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if service_name or not named:
        found["service.name"] = service_name or "trainbus"
    if site.ranks == "all":
        found["trainbus.rank"] = rank() or 0
    return {**found, **given}
