"""Metrics for Prometheus: fetched from this process, or pushed to a Pushgateway."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from handlers.clock import event_time_ns
from handlers.each import take_each
from handlers.forks import renew_in_children
from handlers.losses import countable
from handlers.options import check_count, check_seconds
from handlers.prometheus_endpoint import Endpoint
from handlers.prometheus_families import Families, check_labels
from handlers.prometheus_gateway import Gateway
from handlers.records import Site, TimedEvent
from handlers.refusals import Refusals, Tally
from handlers.secrets import check_url
from telemetry import EventName
from telemetry.extras import import_extra
from telemetry.metrics import Metric, Reporter, check_metrics, monitoring
from telemetry.ranks import rank

PORT: Final = 9464
"""The one that OpenTelemetry's exporters for Prometheus have by default."""
LAST_PORT: Final = 65535

REASONS: Final = {
    "not_finite": "a NaN or an infinity can be in a gauge, but not in a sum or a histogram",
    "name_taken": "in Prometheus their name is that of another metric, kind or set of labels",
    "max_series": "more time series than max_series allows",
    "forked": "metrics of a forked child are not served",
    "closed": "they came after the handler's end",
}
_NAMESPACE: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")


class Prometheus:
    """A sink that keeps the metrics of all events in a registry of its own.

    Attributes:
        registry: The ``prometheus_client.CollectorRegistry``.
        endpoint: What serves it, if anything does.
    """

    delivery = "background"
    idle_after = 1.0

    def __init__(
        self,
        site: Site,
        *,
        registry: Any,
        reporter: Reporter,
        families: Families,
        endpoint: Endpoint | None,
        gateway: Gateway | None,
        delete_on_close: bool,
    ) -> None:
        self.registry = registry
        self.endpoint = endpoint
        self._reporter = reporter
        self._families = families
        self._gateway = gateway
        self._delete_on_close = delete_on_close
        self._refusals = Refusals(site, REASONS)
        self._lock = threading.RLock()
        self._over = ""  # the reason why nothing is taken any more
        renew_in_children(self)

    @property
    def port(self) -> int | None:
        """Where it is served; None if it is only pushed."""
        return self.endpoint.port if self.endpoint else None

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Take one event."""
        entry = TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))
        self.deliver_many([entry])

    def hears(self, event: EventName) -> bool:
        """Whether events of a name are measured."""
        return self._reporter.reports(event)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Take what came; push it, if it is time to."""
        if self._over:
            self._refusals.refuse(self._over, batch)
            return
        tally = Tally()
        with self._lock:
            error = take_each(batch, lambda entry: self._record(entry, tally))
        self._refusals.add(tally)
        if self._gateway is not None and not self._over:
            self._gateway.push_if_due(countable(batch))
        if error is not None:
            raise error

    def idle(self) -> bool:
        """Push what was not pushed yet; whether there is something left."""
        if self._gateway is None or self._over:
            return False
        self._gateway.push_if_due()
        return bool(self._gateway.unpushed)

    def kept(self) -> int:
        """How many events the gateway has not heard of."""
        return self._gateway.unpushed if self._gateway is not None else 0

    def flush(self) -> bool:
        """Push what was not pushed yet; whether the gateway has all of it."""
        if self._gateway is None or self._over:
            return True
        return self._gateway.push()

    def where_to_look(self) -> str:
        """Where it is fetched from, or where it is pushed to."""
        served = [self.endpoint.url] if self.endpoint is not None else []
        pushed = [self._gateway.shown] if self._gateway is not None else []
        return " and ".join(served + pushed)

    def close(self) -> None:
        """Push for the last time, and listen no more."""
        forked = self._over
        self._over = forked or "closed"
        try:
            if self._gateway is not None and not forked:
                self._gateway.close(delete=self._delete_on_close)
        finally:
            if self.endpoint is not None and not forked:
                self.endpoint.close()
            self._refusals.announce_rest()

    def after_fork(self) -> None:
        """In a child: the parent serves and pushes, and a push of the child would replace its."""
        self._lock = threading.RLock()
        if self.endpoint is not None and not self._over:
            self.endpoint.abandon()
        self._over = "forked"

    def _record(self, entry: TimedEvent, tally: Tally) -> None:
        for sample in self._reporter.sampled(entry.event, entry.measurements, entry.metadata):
            if self._gateway is not None:
                self._gateway.is_stale = True
            if refusal := self._families.record(sample):
                tally.note_of(entry.event, refusal, sample.name)


def create(
    site: Site,
    *,
    port: int | None = None,
    addr: str = "127.0.0.1",
    pushgateway: str | None = None,
    job: str = "trainbus",
    grouping_key: Mapping[str, str] | None = None,
    push_interval: float = 10.0,
    delete_on_close: bool = False,
    namespace: str = "",
    metrics: Iterable[Metric] | None = None,
    max_series: int = 1000,
) -> Prometheus:
    """Make the handler ``prometheus``.

    What it sends: https://prometheus.io/docs/instrumenting/exposition_formats/.

    Args:
        site: Where it is attached.
        port: Where the metrics are fetched from, over HTTP, 0 for any free port; None is 9464, or
            nowhere if there is a ``pushgateway``. With ``ranks="all"``, each rank has the port
            that is its rank further on.
        addr: The address to listen on. By default only this machine can fetch.
        pushgateway: URL of a Pushgateway, with a user and a password if it wants them.
        job: The job whose metrics are pushed.
        grouping_key: Further labels that tell it from others at the gateway: what another run
            pushes under the same ones takes its place. With ``ranks="all"``, ``rank`` is one.
        push_interval: Seconds between two pushes.
        delete_on_close: Take the metrics from the gateway at the end, which otherwise keeps them.
        namespace: What all names begin with.
        metrics: What is reported, by default ``telemetry.metrics.monitoring()``.
        max_series: How many sets of values its labels may have for one metric.

    Raises:
        MissingExtraError: ``prometheus_client`` is not installed.
        TypeError: An option of a wrong type.
        ValueError: An option of a wrong value.
        OSError: The port is taken, or the address is none of this machine.

    Example:
        >>> import handlers, telemetry
        >>> with handlers.attach("prometheus", port=0) as attachment:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        ...     _ = attachment.flush()
        ...     for metric in attachment.handler.registry.collect():
        ...         print(metric.type, metric.name, metric.samples[0].value)
        counter training_step 1.0
        gauge training_loss 2.5
    """
    client = import_extra(
        "prometheus_client", extra="prometheus", feature="The handler 'prometheus'"
    )
    number = rank() or 0 if site.ranks == "all" else 0
    definitions = monitoring() if metrics is None else check_metrics(metrics)
    _check(site, addr=addr, job=job, namespace=namespace, delete_on_close=delete_on_close)
    check_labels(site, definitions)
    check_count(f"Handler {site.handler_id!r}: max_series", max_series)
    check_seconds(f"Handler {site.handler_id!r}: push_interval", push_interval)
    grouping = _grouping(site, grouping_key, number)
    url = _gateway_url(site, pushgateway)
    place = _port(site, port, number, default=None if pushgateway else PORT)

    registry = client.CollectorRegistry()
    gateway = None
    if url is not None:
        gateway = Gateway(
            client,
            registry,
            site,
            url=url,
            job=job,
            grouping_key=grouping,
            interval=push_interval,
        )
    return Prometheus(
        site,
        registry=registry,
        reporter=Reporter(definitions),
        families=Families(client, registry, namespace=namespace, max_series=max_series),
        endpoint=None if place is None else Endpoint(client, registry, site, addr=addr, port=place),
        gateway=gateway,
        delete_on_close=delete_on_close,
    )


def _check(site: Site, *, addr: Any, job: Any, namespace: Any, delete_on_close: Any) -> None:
    for option, value in (("addr", addr), ("job", job), ("namespace", namespace)):
        if not isinstance(value, str):
            raise TypeError(
                f"Handler {site.handler_id!r}: {option} must be a string, got {value!r} "
                f"({type(value).__name__})."
            )
    for option, value in (("addr", addr), ("job", job)):
        if not value:
            raise ValueError(f"Handler {site.handler_id!r}: {option} must not be empty.")
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"Handler {site.handler_id!r}: namespace must be letters, digits and _, and begin with "
            f"no digit, got {namespace!r}."
        )
    if not isinstance(delete_on_close, bool):
        raise TypeError(
            f"Handler {site.handler_id!r}: delete_on_close must be True or False, got "
            f"{delete_on_close!r} ({type(delete_on_close).__name__})."
        )


def _port(site: Site, port: object, number: int, *, default: int | None) -> int | None:
    if port is None:
        return None if default is None else default + number
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(
            f"Handler {site.handler_id!r}: port must be an integer, got {port!r} "
            f"({type(port).__name__}). Allowed: 0 (any that is free) to 65535."
        )
    chosen = port + number if port else 0
    if not 0 <= chosen <= LAST_PORT:
        further = f" + rank {number}" if number else ""
        raise ValueError(
            f"Handler {site.handler_id!r}: port must be 0 (any that is free) to 65535, got "
            f"{port!r}{further}."
        )
    return chosen


def _gateway_url(site: Site, pushgateway: object) -> Any:
    if pushgateway is None:
        return None
    return check_url(
        site.handler_id,
        pushgateway,
        schemes=("http", "https"),
        example="http://127.0.0.1:9091",
        option="pushgateway",
    )


def _grouping(site: Site, grouping_key: object, number: int) -> dict[str, str]:
    given = {} if grouping_key is None else grouping_key
    if not isinstance(given, Mapping) or not all(
        isinstance(part, str) for item in given.items() for part in item
    ):
        raise TypeError(
            f"Handler {site.handler_id!r}: grouping_key must map labels to strings, got "
            f"{grouping_key!r} ({type(grouping_key).__name__}). Write grouping_key={{'run': 'a'}}."
        )
    for label in given:
        if not _NAMESPACE.fullmatch(label) or label.startswith("__") or label == "job":
            raise ValueError(
                f"Handler {site.handler_id!r}: grouping_key has the label {label!r}. Allowed: "
                "letters, digits and _, no digit first, not 'job' and no '__' at the beginning."
            )
    return {**({"rank": str(number)} if site.ranks == "all" else {}), **given}
