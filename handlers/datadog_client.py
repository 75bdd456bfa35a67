"""``DatadogMetrics``: metrics, events and service checks said by name, without the bus."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, Unpack, get_args

from handlers.background import Background
from handlers.clock import event_time_ns
from handlers.datadog_checks import check_rate, checked_tags
from handlers.datadog_outlet import Outlet
from handlers.datadog_settings import Common, Options, settings_of
from handlers.datadog_statements import (
    STATUS_CODES,
    AlertType,
    Check,
    Notice,
    Point,
    PointKind,
    Statement,
    Status,
    Told,
)
from handlers.losses import Losses
from handlers.records import Site, TimedEvent
from handlers.sink_attachment import SinkAttachment
from handlers.timed import Timed
from telemetry import EventName, Registry
from telemetry.events.reported import text as metadata_text

NAME: Final = "DatadogMetrics"
CALL: Final = ("datadog", "call")
"""The event that each call is on the client's own bus."""
QUEUE_SIZE: Final = 10_000
FLUSH_TIMEOUT: Final = 5.0

logger = logging.getLogger("telemetry")


class DatadogMetrics:
    """Sends what it is told to Datadog's agent, or to Datadog itself.

    No call waits for the network: a worker thread sends, a bounded number of calls waits for it,
    and what waits at the end of the program is sent then. Its thread lives until it is closed: make
    one for the program, or close what you make for a part of it.

    A value may be a tensor on a device, which the worker reads. A value of None is left out; NaN
    and infinities are counted and logged.

    Args:
        namespace: What the names of metrics begin with.
        constant_tags: What everything is tagged with.
        **options: ``enabled``, ``host``, ``port``, ``socket_path``, ``transport``, ``api_key``,
            ``app_key``, ``api_host``, ``dialect``, ``sample_rate``, ``max_tag_values``, as of the
            handler: see `handlers.datadog.create`, also for the variables that they come from.

    Raises:
        MissingExtraError: The package datadog is not installed.
        TypeError: An option is of a wrong type.
        ValueError: An option or a variable has a wrong value.

    Example:
        >>> metrics = DatadogMetrics(enabled=False, namespace="signal")
        >>> metrics.gauge("training.loss", 0.5, tags=["run_id:a"])
        >>> with metrics.timed("performance.optim_step"):
        ...     pass
        >>> metrics.close()
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        constant_tags: Iterable[str] = (),
        **options: Unpack[Common],
    ) -> None:
        for option in options:
            if option not in Common.__annotations__:
                allowed = ", ".join(["namespace", "constant_tags", *Common.__annotations__])
                raise TypeError(f"{NAME} has no option {option!r}. Allowed: {allowed}.")
        given: Options = {**options, "namespace": namespace, "tags": constant_tags}
        settings = settings_of(NAME, given)
        self.enabled = not settings.disabled
        self._bus = Registry()
        site = Site(NAME, self._bus, (CALL,), "all")
        self._late = Losses(site, "closed")
        self._attachment: SinkAttachment | None = None
        if self.enabled:
            self._attachment = _attached(site, Outlet(site, settings))
        else:
            logger.info("%s sends nothing: %s.", NAME, settings.disabled)

    def __repr__(self) -> str:
        return f"{NAME}(enabled={self.enabled})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def gauge(
        self,
        metric: str,
        value: Any,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Say what a value is now.

        Args:
            metric: The name, with or without the namespace.
            value: A number, or a tensor with one.
            tags: ``"key:value"`` or a word each.
            sample_rate: The probability with which it is sent.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: The rate is not more than 0 and at most 1.
        """
        self._point("gauge", metric, value, tags, sample_rate)

    def histogram(
        self,
        metric: str,
        value: Any,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Add a value to a histogram, which each host sums up; arguments as of `gauge`."""
        self._point("histogram", metric, value, tags, sample_rate)

    def distribution(
        self,
        metric: str,
        value: Any,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Add a value to a distribution over all hosts; arguments as of `gauge`."""
        self._point("distribution", metric, value, tags, sample_rate)

    def timing(
        self,
        metric: str,
        value: Any,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Add a duration in milliseconds; arguments as of `gauge`."""
        self._point("timing", metric, value, tags, sample_rate)

    def increment(
        self,
        metric: str,
        value: Any = 1,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Count up; arguments as of `gauge`."""
        self._point("count", metric, value, tags, sample_rate)

    def decrement(
        self,
        metric: str,
        value: Any = 1,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Count down; arguments as of `gauge`."""
        self._point("count", metric, value, tags, sample_rate, sign=-1)

    def set(
        self,
        metric: str,
        value: object,
        tags: Sequence[str] | None = None,
        sample_rate: float = 1.0,
    ) -> None:
        """Count how many different values there are; arguments as of `gauge`, but any value."""
        self._point("set", metric, value, tags, sample_rate)

    def timed(
        self, metric: str, tags: Sequence[str] | None = None, sample_rate: float = 1.0
    ) -> Timed:
        """Measure how long a block or a function takes, coroutine functions included.

        Args:
            metric: As of `gauge`; the value is in milliseconds.
            tags: As of `gauge`.
            sample_rate: As of `gauge`.

        Returns:
            A context manager that is a decorator too.
        """
        fixed = _tags(tags)
        return Timed(lambda seconds: self.timing(metric, seconds * 1e3, fixed, sample_rate))

    def event(
        self,
        title: str,
        text: str,
        alert_type: AlertType = "info",
        tags: Sequence[str] | None = None,
        aggregation_key: str = "",
    ) -> None:
        """Put a message into Datadog's event stream.

        Args:
            title: At most 100 characters are sent.
            text: At most 4,000, and fewer where a datagram has no room for them.
            alert_type: ``"info"``, ``"success"``, ``"warning"`` or ``"error"``.
            tags: As of `gauge`.
            aggregation_key: Events with the same one are shown together.

        Raises:
            ValueError: There is no such alert type.
        """
        if alert_type not in get_args(AlertType):
            raise ValueError(
                f"{NAME}.event: alert_type is {alert_type!r}. "
                f"Allowed: {', '.join(map(repr, get_args(AlertType)))}."
            )
        now = event_time_ns()
        self._say(
            Notice(str(title), str(text), alert_type, _tags(tags), now, str(aggregation_key)), 0
        )

    def service_check(
        self,
        check_name: str,
        status: Status | int,
        message: str = "",
        tags: Sequence[str] | None = None,
    ) -> None:
        """Say how something is.

        Args:
            check_name: What; the namespace is not put before it.
            status: ``"OK"``, ``"WARNING"``, ``"CRITICAL"``, ``"UNKNOWN"``, or 0 to 3.
            message: Why.
            tags: As of `gauge`.

        Raises:
            ValueError: There is no such status.
        """
        now = event_time_ns()
        self._say(Check(str(check_name), _status(status), str(message), _tags(tags), now), 0)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was said so far is sent; whether that happened in time."""
        return self._attachment is None or self._attachment.flush(timeout)

    def close(self) -> None:
        """Send what waits, for at most five seconds; what is said later is counted and logged."""
        if self._attachment is not None:
            self._attachment.detach()

    def _point(
        self,
        kind: PointKind,
        metric: str,
        value: Any,
        tags: Sequence[str] | None,
        rate: float,
        sign: int = 1,
    ) -> None:
        if value is None:
            return
        if isinstance(value, str) and kind != "set":
            raise TypeError(
                f"{NAME}.{kind}: the value of {metric!r} must be a number, got {value!r} (str)."
            )
        check_rate(f"{NAME}.{kind}", rate)
        self._say(Point(kind, str(metric), 0.0, _tags(tags), rate, event_time_ns()), value, sign)

    def _say(self, statement: Statement, value: Any, sign: int = 1) -> None:
        if self._attachment is None:
            return
        if not self._attachment.active:
            self._late.add(1, "said after the client was closed")
            return
        # The value stands where the worker looks for tensors.
        self._bus.execute(CALL, {"value": value}, {"statement": statement, "sign": sign})


class _Calls:
    """What the client's worker delivers to."""

    delivery = "background"
    idle_after = 1.0

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.idle = outlet.idle
        self.flush = outlet.flush
        self.kept = outlet.kept
        self.close = outlet.close

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        entry = TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))
        self.deliver_many([entry])

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        self._outlet.send(_said(batch))


def _said(batch: Iterable[TimedEvent]) -> Iterator[Told]:
    for entry in batch:
        statement = entry.metadata["statement"]
        if isinstance(statement, Point):
            value = entry.measurements["value"]
            if isinstance(value, int | float) and statement.kind == "count":
                value *= entry.metadata["sign"]
            statement = statement._replace(value=value)
        yield Told([statement])


def _attached(site: Site, outlet: Outlet) -> SinkAttachment:
    """The outlet behind a worker, on a bus of its own."""
    calls = _Calls(outlet)
    worker = Background(
        site,
        calls,
        always=True,
        queue_size=QUEUE_SIZE,
        overflow="drop_oldest",
        flush_timeout=FLUSH_TIMEOUT,
        stop_on_failure=True,
    )
    attachment = site.registry.attach_many(site.handler_id, site.events, worker)
    return SinkAttachment(site, attachment, calls, worker, flush_timeout=FLUSH_TIMEOUT)


def _tags(tags: Sequence[str] | None) -> tuple[str, ...]:
    return () if tags is None else tuple(map(metadata_text, checked_tags(NAME, tags)))


def _status(given: object) -> Status:
    if isinstance(given, str | int) and not isinstance(given, bool):
        for status, code in STATUS_CODES.items():
            if given in (status, code):
                return status
    raise ValueError(
        f"{NAME}.service_check: status is {given!r}. "
        f"Allowed: {', '.join(map(repr, STATUS_CODES))}, or 0 to 3."
    )
