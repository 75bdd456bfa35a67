"""The handler that judges events by rules."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

from telemetry.alerts.deferred import Deferred
from telemetry.alerts.outbox import Outbox
from telemetry.alerts.rule import Rule
from telemetry.alerts.series import Series, hashable, is_same, keys_of
from telemetry.alerts.silence import RUN_ENDS, RUN_START, Found, Silence, Watched
from telemetry.alerts.subject import ALERT
from telemetry.alerts.track import Change, Track
from telemetry.alerts.where import Needs, fits
from telemetry.fork import renew_in_child
from telemetry.log import log_error
from telemetry.names import matches
from telemetry.records import EventName, Pattern
from telemetry.registry import Registry
from telemetry.values import on_device, to_python, to_python_many

MAX_PLANS: Final = 4096
"""Of event names, of which is known what is to be done with them."""

Tracks: TypeAlias = tuple[tuple[int, Needs, Track], ...]
"""Of each rule: which of the event's watched values it judges, of which events, and its state."""


class Plan:
    """What is to be done with the events of one name.

    Args:
        event: The name.
        rules: Those on its measurements.
        silences: Those on its absence.
        is_of_a_run: Whether it starts or ends one.

    Attributes:
        ends_a_run: Whether it ends one.
        measurements: Those that are watched.
        rules: Each with the index of its measurement in these.
        keys: Of the metadata, by which its series are told apart beside those of all events.
        series: What tells the series of its last event apart, for most come again and again.
        tracks: The states of that series.
    """

    __slots__ = (
        "ends_a_run",
        "event",
        "is_of_a_run",
        "keys",
        "measurements",
        "rules",
        "series",
        "silences",
        "tracks",
    )

    def __init__(
        self,
        event: EventName,
        rules: Sequence[Rule],
        silences: tuple[Watched, ...],
        *,
        is_of_a_run: bool,
    ) -> None:
        self.event = event
        names = self.measurements = tuple(dict.fromkeys(rule.measurement for rule in rules))
        self.rules = tuple((names.index(rule.measurement), rule) for rule in rules)
        self.silences = silences
        self.is_of_a_run = is_of_a_run
        self.ends_a_run = event in RUN_ENDS
        self.keys = keys_of(event)
        self.series: tuple[Any, ...] = ()
        self.tracks: Tracks = ()


class Watcher:
    """Judges events as they come, and sends alerts.

    Plain numbers are judged in the thread that emits; what has a scalar on a device, and all that
    comes while one of these waits, on a thread of its own.

    Args:
        rules: With different names.
        registry: The bus.
        handler_id: As which it is attached.
        clock: Seconds.

    Attributes:
        deferred: What waits for a device.
        silence: What looks after the rules on silence.
        fail: Called with the event and the error when one cannot be judged on that thread.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        registry: Registry,
        handler_id: Hashable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rules = tuple(rules)
        self._clock = clock
        self._rules = tuple(rule for rule in rules if rule.stalled is None)
        self._outbox = Outbox(registry, handler_id)
        self.deferred: Deferred[_Entry] = Deferred(registry, handler_id, self._judge_deferred)
        silent = [rule for rule in rules if rule.stalled is not None]
        self.silence = Silence(silent, clock, self._send_silences)
        self._plans: dict[EventName, Plan] = {}
        self._series: Series[tuple[Plan, Tracks]] = Series()
        self._lock = threading.RLock()
        self.fail: Callable[[EventName, Exception], object] = _log
        renew_in_child(self)

    @property
    def patterns(self) -> list[Pattern]:
        """The events that it has to hear."""
        silences = [watched.rule.event for watched in self.silence.watched]
        starts = [RUN_START] if silences else []
        return [*(rule.event for rule in self._rules), *silences, *starts, *sorted(RUN_ENDS)]

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Judge one event."""
        plan = self._plans.get(event) or self._new_plan(event)
        if plan.rules or plan.ends_a_run:
            values = []
            waits = self.deferred.busy
            for name in plan.measurements:
                value = measurements.get(name)
                if type(value) is not float and not waits:
                    waits = on_device(value)
                values.append(value)
            if not (waits and self.deferred.put(_Entry(plan, values, dict(metadata)))):
                self._judge(plan, values, metadata)
        for watched in plan.silences:
            if fits(watched.rule.needs, metadata):
                self.silence.heard(watched, metadata)
        if plan.is_of_a_run and self.silence.watched:
            self.silence.run_event(event, metadata)

    def _renew(self) -> None:
        """In a forked child: what waits, and what was seen, is the parent's."""
        self._lock = threading.RLock()
        self._series.clear()
        self._plans.clear()
        self._outbox.renew()
        self.deferred.renew()
        self.silence.renew()

    def _judge(self, plan: Plan, values: Sequence[Any], metadata: Mapping[str, Any]) -> None:
        series: tuple[Any, ...] = (
            metadata.get("run_id"),
            metadata.get("rank"),
            metadata.get("host"),
        )
        if plan.keys:
            series += tuple(map(metadata.get, plan.keys))
        self._lock.acquire()  # twice as fast as a with block, and this runs for every event
        try:
            tracks = plan.tracks if is_same(series, plan.series) else self._tracks(plan, series)
            changed = self._step(plan, tracks, values, metadata)
            if plan.ends_a_run:
                changed |= self._end_run(series[0])
        finally:
            self._lock.release()
        if changed:
            self._outbox.emit()

    def _step(
        self, plan: Plan, tracks: Tracks, values: Sequence[Any], metadata: Mapping[str, Any]
    ) -> bool:
        """Judge the values of an event; whether there is something to send."""
        changed = False
        for index, needs, track in tracks:
            value = values[index]
            if type(value) is not float:
                value = _number(value)
            if value is None or (needs and not fits(needs, metadata)):
                continue
            if track.calm_low <= value <= track.calm_high:
                if track.take is not None:
                    track.take(value)
                    track.room -= 1
                    if not track.room:
                        track.settle()
                continue
            change = track.feed(value)
            if change is not None:
                changed = True
                track.metadata = dict(metadata)
                self._put(track.rule, change, plan, index, metadata)
        return changed

    def _put(
        self, rule: Rule, change: Change, plan: Plan, index: int, metadata: Mapping[str, Any]
    ) -> None:
        # The context of the thread that judges, for handlers that look for a trace in it.
        context = copy_context()
        self._outbox.put(rule, change, plan.event, plan.measurements[index], metadata, context)

    def _end_run(self, run_id: object) -> bool:
        """Clear what is raised of a run; whether there is something to send."""
        for plan in self._plans.values():
            self._keep_last(plan)
        ended = hashable((run_id,))
        changed = False
        for (_, *series), (plan, tracks) in self._series.items():
            if tuple(series[:1]) != ended:
                continue
            for index, _, track in tracks:
                change = track.end()
                if change is not None:
                    changed = True
                    self._put(track.rule, change, plan, index, track.metadata)
        return changed

    def _keep_last(self, plan: Plan) -> None:
        """Keep the series of an event that was used until now, without having been looked up."""
        if plan.tracks:
            self._series.keep((plan.event, *hashable(plan.series)), (plan, plan.tracks))

    def _judge_deferred(self, entries: Sequence[_Entry]) -> None:
        numbers = to_python_many(
            [dict(zip(entry.plan.measurements, entry.values, strict=True)) for entry in entries]
        )
        for entry, values in zip(entries, numbers, strict=True):
            try:
                self._judge(entry.plan, list(values.values()), entry.metadata)
            except Exception as error:  # which must not take those after it along
                self.fail(entry.plan.event, error)

    def _send_silences(self, found: list[Found]) -> None:
        for rule, change, metadata in found:
            # An empty context: who has found that a silence is over may be in another run.
            self._outbox.put(rule, change, rule.event, "", metadata, Context())
        self._outbox.emit()

    def _tracks(self, plan: Plan, series: tuple[Any, ...]) -> Tracks:
        """The states of another series than that of the last event of this name."""
        self._keep_last(plan)
        key = plan.event, *hashable(series)
        kept = self._series.get(key)
        if kept is None:
            tracks = tuple((at, rule.needs, Track(rule, self._clock)) for at, rule in plan.rules)
        else:
            tracks = kept[1]
        self._series.keep(key, (plan, tracks))
        plan.series, plan.tracks = series, tracks
        return tracks

    def _new_plan(self, event: EventName) -> Plan:
        is_alert = event[0] == ALERT
        rules = [] if is_alert else [rule for rule in self._rules if matches(rule.event, event)]
        silences = tuple(
            watched
            for watched in self.silence.watched
            if not is_alert and matches(watched.rule.event, event)
        )
        is_of_a_run = event == RUN_START or event in RUN_ENDS
        plan = Plan(event, rules, silences, is_of_a_run=is_of_a_run)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[event] = plan
        return plan


class _Entry(NamedTuple):
    """The watched values of one event, and a copy of its metadata."""

    plan: Plan
    values: Sequence[Any]
    metadata: Mapping[str, Any]


def _log(event: EventName, error: Exception) -> None:
    log_error(error, "Alerts: %s cannot be judged: %r", ".".join(event), error)


def _number(value: object) -> float | None:
    """A measurement as a number; None for what is no single one."""
    plain = to_python(value)
    if not isinstance(plain, int | float):
        return None
    try:
        return float(plain)
    except OverflowError:
        return inf if plain > 0 else -inf
