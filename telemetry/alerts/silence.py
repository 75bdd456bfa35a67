"""Rules on silence: no event for so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import inf
from typing import Any, Final, TypeAlias

from telemetry.alerts.rule import Rule
from telemetry.alerts.series import Series, as_raised, hashable, is_same
from telemetry.alerts.track import Change
from telemetry.alerts.where import is_another
from telemetry.log import log_error
from telemetry.records import EventName

RUN_START: Final = ("workflow", "run", "start")
RUN_ENDS: Final = frozenset({("workflow", "run", "stop"), ("workflow", "run", "exception")})
LONGEST: Final = 3600.0
"""Seconds between two looks, at most: not all that waits can wait for much longer."""
PAUSE: Final = 1.0
"""Seconds until the next look after one that has failed."""
JOIN: Final = 1.0
"""Seconds to wait for the thread, which can be inside a handler of an alert."""

Run: TypeAlias = tuple[Hashable, ...]
Found: TypeAlias = tuple[Rule, Change, Mapping[str, Any]]
_FROM_ATTACH: Final[Run] = ("from attach on",)


class _Heard:
    """When a run was heard last, for one rule."""

    __slots__ = ("at", "metadata", "raised", "raised_at", "silent_since")

    def __init__(self, at: float, metadata: Mapping[str, Any]) -> None:
        self.at = at
        self.metadata = metadata
        self.raised = False
        self.raised_at = self.silent_since = -inf


class Watched:
    """A rule on silence, the runs that it waits for, and the one that it has heard last."""

    __slots__ = ("last", "last_run", "limit", "rule", "runs")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.limit = rule.stalled or 0.0
        self.runs: Series[_Heard] = Series()
        self.last_run: Run = ()
        self.last: _Heard | None = None


class Silence:
    """Looks after the rules on silence, on a thread of its own.

    Args:
        rules: Those on silence.
        clock: Seconds.
        found: Called with what was raised or is over, without a lock held.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        clock: Callable[[], float],
        found: Callable[[list[Found]], object],
    ) -> None:
        self._clock = clock
        self._found = found
        self.watched = tuple(map(Watched, rules))
        self._closed = False
        self.renew()
        with self._changed:
            for watched in self.watched:
                self._expect(watched, _FROM_ATTACH, {})

    def renew(self) -> None:
        """Start without a thread and with nothing expected, in a forked child."""
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._next_look = inf
        for watched in self.watched:
            watched.runs.clear()
            watched.last = None

    def start(self) -> None:
        """Watch from now on."""
        with self._changed:
            if not self.watched or self._thread is not None or self._closed:
                return
            thread = threading.Thread(target=self._run, name="trainbus-silence", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                return
            self._thread = thread

    def close(self) -> None:
        """Look no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN)

    def heard(self, watched: Watched, metadata: Mapping[str, Any]) -> None:
        """An event that a rule waits for has come."""
        if type(metadata) is not dict:
            metadata = dict(metadata)  # read again when it has been silent for long
        run = _run_of(metadata)
        now, last = self._clock(), watched.last
        if last is not None and not last.raised and is_same(run, watched.last_run):
            last.at, last.metadata = now, metadata  # without a lock, which costs as much again
            if not last.raised:  # while this was written; see `_look_at`
                return
        run = hashable(run)
        over: list[Found] = []
        with self._changed:
            if _FROM_ATTACH in watched.runs:
                over += self._forget(watched, _FROM_ATTACH, now)
            heard = watched.runs.get(run)
            if heard is None:
                heard = self._expect(watched, run, metadata)
            elif heard.raised:
                over.append(_end(watched, heard, now, as_raised(metadata, heard.metadata)))
                self._look_by(now + watched.limit)
            heard.at, heard.metadata = now, metadata
            watched.runs.keep(run, heard)
            watched.last_run, watched.last = run, heard
        if self._thread is None:
            self.start()
        if over:
            self._found(over)

    def run_event(self, event: EventName, metadata: Mapping[str, Any]) -> None:
        """A run starts or has ended."""
        run = hashable(_run_of(metadata))
        now = self._clock()
        over: list[Found] = []
        with self._changed:
            for watched in self.watched:
                if is_another(watched.rule.needs, metadata):
                    continue
                if event != RUN_START:
                    over += self._forget(watched, run, now)
                elif run not in watched.runs:
                    self._expect(watched, run, dict(metadata))
                over += self._forget(watched, _FROM_ATTACH, now)
        if event == RUN_START:
            self.start()
        if over:
            self._found(over)

    def look(self) -> None:
        """Raise what has been silent for too long."""
        raised: list[Found] = []
        with self._changed:
            now = self._clock()
            self._next_look = inf
            for watched in self.watched:
                for heard in watched.runs.values():
                    raised += self._look_at(watched, heard, now)
        if raised:
            self._found(raised)

    def _look_at(self, watched: Watched, heard: _Heard, now: float) -> list[Found]:
        if heard.raised:
            return []
        at = heard.at
        due = max(at + watched.limit, heard.raised_at + watched.rule.cooldown)
        if now < due:
            self._look_by(due)
            return []
        heard.raised = True
        # An event that comes now either sees that, and takes the lock, or is seen here.
        if heard.at != at:
            heard.raised = False
            self._look_by(now)
            return []
        heard.raised_at, heard.silent_since = now, at
        change = Change(raised=True, value=now - at, limit=watched.limit)
        return [(watched.rule, change, dict(heard.metadata))]

    def _expect(self, watched: Watched, run: Run, metadata: Mapping[str, Any]) -> _Heard:
        now = self._clock()
        heard = _Heard(now, metadata)
        watched.runs.keep(run, heard)
        self._look_by(now + watched.limit)
        return heard

    def _forget(self, watched: Watched, run: Run, now: float) -> list[Found]:
        """Wait for a run no more; that it is over, if it was raised, with the same metadata."""
        watched.last = None
        heard = watched.runs.pop(run, None)
        if heard is None or not heard.raised:
            return []
        return [_end(watched, heard, now, heard.metadata)]

    def _look_by(self, time: float) -> None:
        if time < self._next_look:
            self._next_look = time
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._closed:
            try:
                self.look()
                with self._changed:
                    wait = self._next_look - self._clock()
                    if wait > 0 and not self._closed:
                        self._changed.wait(min(wait, LONGEST))
            except Exception as error:
                log_error(error, "Alerts on silence: an error on their thread: %r", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, PAUSE)


def _run_of(metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a run from others; its start and its end need not say on which rank they are."""
    return (metadata.get("run_id"),)


def _end(watched: Watched, heard: _Heard, now: float, metadata: Mapping[str, Any]) -> Found:
    heard.raised = False
    change = Change(raised=False, value=now - heard.silent_since, limit=watched.limit)
    return watched.rule, change, dict(metadata)
