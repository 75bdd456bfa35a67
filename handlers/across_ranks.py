"""Measurements reduced over the ranks of a distributed run, before a sink gets the event.

Each rank has a handler of its own for it, also where no sink is built: ranks wait for each other.
When a sink fails on one rank, that handler goes on there until no rank has a use for it, because
the others would wait.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import count
from typing import Any, Final, NamedTuple

from handlers.background import ANNOUNCED
from handlers.errors import DeliveryError
from handlers.forks import renew_in_children
from handlers.rank_groups import Column, Found, Operation, RankGroup, group_of_run
from handlers.records import Site
from telemetry import Attachment, EventName, HandlerFunction, signals
from telemetry.metrics import Metric

MAX_PLANS: Final = 4096
_numbers = count()


class Plan(NamedTuple):
    """What is reduced of the events of one name."""

    metrics: tuple[Metric, ...]
    columns: dict[Operation, tuple[Column, ...]]
    tag: int


def reduced_metrics(options: dict[str, Any]) -> tuple[Metric, ...]:
    """Those of the option ``metrics`` that are reduced; an iterator there becomes a tuple."""
    given = options.get("metrics")
    if isinstance(given, Iterator):
        options["metrics"] = given = tuple(given)
    if not isinstance(given, Collection):
        return ()
    return tuple(metric for metric in given if isinstance(metric, Metric) and metric.reduce)


class AcrossRanks:
    """Reduces measurements of each event, and hands it on with these beside its own.

    Args:
        site: Where the sink is attached.
        metrics: What is reduced.
        head: What takes the events.
        asks: Whether there is a sink on this rank.
    """

    def __init__(
        self, site: Site, metrics: tuple[Metric, ...], head: HandlerFunction, *, asks: bool
    ) -> None:
        self._site = site
        self._metrics = metrics
        self._head = head
        self._asks = asks
        self._plans: dict[EventName, Plan] = {}
        self._one_at_a_time = threading.RLock()
        self._forked = False
        self._group: RankGroup | None = None
        self._broken: DeliveryError | None = None
        self._failed = False
        renew_in_children(self)

    def watched(self, attachment: Attachment) -> Attachment:
        """The sink's attachment, through which the sink fails without leaving the other ranks."""
        return _Watched(attachment, self)

    def start(self, attachment: Attachment) -> None:
        """Take part from now on; ``attachment``, which does nothing itself, is the sink's."""
        self._attachment = attachment
        own_id = ("across ranks", self._site.handler_id, next(_numbers))
        self._own = self._site.registry.attach_many(own_id, self._site.events, self)
        signals.handler_detached.connect(self._on_detached, sender=self._site.registry)

    def after_fork(self) -> None:
        """In a forked child: alone, and with a lock that no thread of the parent holds."""
        self._one_at_a_time = threading.RLock()
        self._forked = True

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Reduce what is to be reduced of an event, with the other ranks, and hand it on."""
        plan = self._plans.get(event) or self._plan(event)
        try:
            if plan.metrics:
                with self._one_at_a_time:
                    measurements = {**measurements, **self._reduced(event, plan, measurements)}
            if self._attachment.active:
                self._head(event, measurements, metadata, None)
        except Exception as error:
            self._attachment.fail(event, error)
        if plan.metrics and self._is_over():
            self.leave()

    def _reduced(
        self, event: EventName, plan: Plan, measurements: Mapping[str, Any]
    ) -> dict[str, Any]:
        if self._broken is not None:
            raise self._broken.with_traceback(None)  # which would grow with each event
        # A forked child must not speak in its parent's name.
        self._group = None if self._forked else group_of_run(self._group)
        if self._group is None:
            return _own_values(plan, measurements)
        try:
            found = self._over_ranks(self._group, plan, measurements)
        except Exception as error:
            self._broken = _explained(event, plan, self._group, error)
            raise self._broken from error
        return _named(plan, found)

    def _over_ranks(
        self, group: RankGroup, plan: Plan, measurements: Mapping[str, Any]
    ) -> dict[tuple[Operation, Column], Found]:
        asks = self._asks and self._attachment.active
        found: dict[tuple[Operation, Column], Found] = {}
        for operation, columns in plan.columns.items():
            values = [(_value(measurements, column.measurement), column.sign) for column in columns]
            tag = zlib.crc32(operation.encode(), plan.tag)
            results = group.reduce(operation, tag, values, asks=asks)
            found.update(zip(((operation, column) for column in columns), results, strict=True))
        return found

    def _is_over(self) -> bool:
        """Whether no other rank would wait for this one."""
        if self._group is None or self._broken is not None:
            return not self._attachment.active
        return self._group.nobody_asks

    def stay(self) -> None:
        """Go on taking part when the sink's handler is detached now, because it fails."""
        self._failed = True

    def leave(self) -> None:
        """Take part no more, because the handler is detached on all ranks."""
        self._own.detach()

    def _on_detached(self, _sender: object, handler_id: Hashable) -> None:
        if handler_id != self._site.handler_id or self._attachment.active:
            return
        if not self._failed or self._is_over():
            self.leave()

    def _plan(self, event: EventName) -> Plan:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        plan = _plan_of(event, self._metrics)
        self._plans[event] = plan
        return plan


class _Watched(Attachment):
    """A sink's attachment, which tells a failure of the sink from the end of the handler."""

    def __init__(self, attachment: Attachment, across: AcrossRanks) -> None:
        self._attachment = attachment
        self._across = across

    @property
    def id(self) -> Hashable:
        return self._attachment.id

    @property
    def active(self) -> bool:
        return self._attachment.active

    def detach(self) -> None:
        self._attachment.detach()
        self._across.leave()

    def fail(self, event: EventName, error: Exception) -> None:
        self._across.stay()
        self._attachment.fail(event, error)


def elsewhere(
    event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any
) -> None:
    """Stands where the handler is attached whose events come by way of `AcrossRanks`."""


def _plan_of(event: EventName, metrics: tuple[Metric, ...]) -> Plan:
    # The bus's own events are those of one rank, for which the others would not come.
    own = event[: len(ANNOUNCED)] == ANNOUNCED
    mine = () if own else tuple(metric for metric in metrics if metric.matches(event))
    columns: dict[Operation, dict[Column, None]] = {}
    for metric in mine:
        operation, column = _source(metric)
        columns.setdefault(operation, {})[column] = None
    ordered = {operation: tuple(columns[operation]) for operation in sorted(columns)}
    return Plan(mine, ordered, zlib.crc32(ascii((event, ordered)).encode()))


def _source(metric: Metric) -> tuple[Operation, Column]:
    """What is reduced for a definition, and how."""
    if metric.reduce in ("mean", "sum"):
        return "sum", Column(metric.measurement)
    return "max", Column(metric.measurement, 1 if metric.reduce == "max" else -1)


def _value(measurements: Mapping[str, Any], name: str) -> Any:
    try:
        return measurements.get(name)
    except Exception:
        return None  # the other ranks wait for this one, whatever its measurements are


def _own_values(plan: Plan, measurements: Mapping[str, Any]) -> dict[str, Any]:
    own = {metric: _value(measurements, metric.measurement) for metric in plan.metrics}
    return {metric.source: value for metric, value in own.items() if value is not None}


def _named(plan: Plan, found: dict[tuple[Operation, Column], Found]) -> dict[str, Any]:
    """What was found, as the definitions read it."""
    named: dict[str, Any] = {}
    for metric in plan.metrics:
        result = found[_source(metric)]
        if not isinstance(result.count, float):
            named[metric.presence] = result.count  # on a device, where nobody waits for it
        elif result.count == 0:
            continue
        named[metric.source] = result.mean if metric.reduce == "mean" else result.value
    return named


def _explained(event: EventName, plan: Plan, group: RankGroup, error: Exception) -> DeliveryError:
    names = ", ".join(dict.fromkeys(metric.measurement for metric in plan.metrics))
    return DeliveryError(
        f"Cannot reduce {names} of {'.'.join(event)} over {group.size} ranks. Every rank must "
        "attach the handler with the same metrics, and emit the event as often as the others, in "
        "the same order, from one thread. To report each rank's own value: leave out reduce=. "
        f"The error was: {error}"
    )
