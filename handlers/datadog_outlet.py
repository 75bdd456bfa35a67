"""The way out to Datadog: statements are made fit for it, counted if they cannot be, and sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Final, TypeVar

from handlers import dogstatsd_text as text
from handlers.datadog_agent import Agent, Lines
from handlers.datadog_api import Api
from handlers.datadog_settings import Settings
from handlers.datadog_statements import Notice, Point, Statement, Told, Transport
from handlers.dogstatsd import DogStatsdLines
from handlers.forks import renew_in_children
from handlers.losses import Losses
from handlers.plain_statsd import PlainStatsdLines
from handlers.records import Site
from handlers.refusals import Refusals, Tally
from handlers.retrying import Retrying
from handlers.secrets import redact_urls
from handlers.tag_limit import TagLimit
from telemetry.events.reported import text as metadata_text

MAX_CACHED: Final = 4096
REASONS: Final = {
    "not_finite": "Datadog takes no NaN, no infinity and nothing but numbers",
    "too_long": "longer than a datagram",
}

Key = TypeVar("Key")
Fit = TypeVar("Fit")

logger = logging.getLogger("telemetry")


class Outlet:
    """Sends statements of any threads, whatever their names, tags and values are.

    Args:
        site: Whose.
        settings: Where to, and what is added.
    """

    def __init__(self, site: Site, settings: Settings) -> None:
        self._settings = settings
        self._losses = Losses(site, "no_connection")
        self._refused = Losses(site, "refused")
        self._refusals = Refusals(site, REASONS)
        self._limit = TagLimit(site.handler_id, settings.max_tag_values)
        self._transport = _transport(site, settings, self._losses, self._refused)
        # Of names and tags as they are given. A tag's value that the limit admitted, or did not,
        # has the same answer for ever.
        self._series: dict[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]] = {}
        self._tags: dict[str, str] = {}
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """With a lock that nobody holds."""
        self._lock = threading.RLock()

    def send(self, events: Iterable[Told]) -> None:
        """Send them, or keep them until their interval ends, as the transport does."""
        tally = Tally()
        with self._announcing(), self._lock:
            fit = [self._all_fit(told, tally) for told in events]
            tally.note("too_long", count=self._transport.send(fit))
        self._refusals.add(tally)

    def idle(self) -> bool:
        """Send what has waited long enough; whether something waits still."""
        with self._announcing(), self._lock:
            return self._transport.idle()

    def kept(self) -> int:
        """How many events of earlier calls wait; without the lock, which a request holds."""
        return self._transport.kept()

    def where_to_look(self, name: str) -> str:
        """Where it sends, and as what a metric of that name arrives there."""
        agent, api = str(self._settings.address), redact_urls(self._settings.api_url)
        place = agent if self._settings.transport == "agent" else api
        return f"{place}, metric {text.metric_name(name, self._settings.namespace)}"

    def flush(self) -> None:
        """Send what waits."""
        with self._announcing(), self._lock:
            self._transport.flush()

    def close(self) -> None:
        """Send what waits, and close the connection; a late statement opens it again."""
        try:
            with self._lock:
                self._transport.close()
        finally:
            self._losses.announce_rest()
            self._refused.announce_rest()
            self._refusals.announce_rest()

    @contextmanager
    def _announcing(self) -> Iterator[None]:
        """Announce what was lost once the lock is free: who hears of it may be waiting for it."""
        try:
            yield
        finally:
            self._losses.announce_if_due()
            self._refused.announce_if_due()

    def _all_fit(self, told: Told, tally: Tally) -> Told:
        counts = tally if told.size else Tally()
        fit = [ready for each in told.statements if (ready := self._fit(each, counts)) is not None]
        return told._replace(statements=fit)

    def _fit(self, statement: Statement, tally: Tally) -> Statement | None:
        if isinstance(statement, Point):
            return self._fit_point(statement, tally)
        if isinstance(statement, Notice):
            return self._fit_notice(statement)
        return statement._replace(
            name=text.metric_name(statement.name),
            message=text.paragraph(self._redacted(statement.message)),
            tags=self._all_tags(statement.tags),
        )

    def _fit_point(self, point: Point, tally: Tally) -> Point | None:
        kind, given, value, tags, rate, time_ns = point
        fit = self._member(value) if kind == "set" else _finite(value)
        if fit is None:
            tally.note("not_finite", given)
            return None
        series = self._series.get((given, tags))
        if series is None:
            name = text.metric_name(self._redacted(given), self._settings.namespace)
            series = (name, self._all_tags(tags))
            _remember(self._series, (given, tags), series)
        return Point(kind, series[0], fit, series[1], rate * self._settings.sample_rate, time_ns)

    def _fit_notice(self, notice: Notice) -> Notice:
        key = notice.aggregation_key
        return notice._replace(
            title=text.title(self._redacted(notice.title)),
            text=text.paragraph(self._redacted(notice.text)) or "-",
            tags=self._all_tags(notice.tags),
            aggregation_key=self._member(key) if key else "",
        )

    def _member(self, value: object) -> str:
        return text.member(self._redacted(metadata_text(value)))

    def _all_tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        if self._settings.dialect == "statsd":
            return ()  # or they would be bounded, and that be logged, for nothing
        found = []
        for given in tags:
            fit = self._tags.get(given)
            if fit is None:
                fit = text.tag(self._redacted(given))
                _remember(self._tags, given, fit)
            if fit:
                found.append(self._limit.admit(fit))
        return tuple(dict.fromkeys((*found, *self._settings.tags)))

    def _redacted(self, shown: str) -> str:
        return self._settings.secrets.redact(shown)


def _finite(value: object) -> float | None:
    """A number as a float, which every transport can write; None if it is none."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def _remember(known: dict[Key, Fit], given: Key, fit: Fit) -> None:
    if len(known) >= MAX_CACHED:
        known.clear()
    known[given] = fit


def _transport(site: Site, settings: Settings, losses: Losses, refused: Losses) -> Transport:
    if settings.transport == "api":
        return Api(site, settings, losses, refused)
    address = settings.address
    retrying = Retrying(site, str(address), passes=_passes, losses=losses)
    return Agent(_dialect(site, settings), address, retrying, losses)


def _dialect(site: Site, settings: Settings) -> Lines:
    size = settings.address.size
    if settings.dialect == "datadog":
        return DogStatsdLines(f"Handler {site.handler_id!r}", size)
    if settings.tags:
        logger.warning(
            "Handler %r leaves the tags %s out: plain StatsD has none.",
            site.handler_id,
            ", ".join(settings.tags),
        )
    return PlainStatsdLines(site.handler_id, size)


def _passes(error: Exception) -> float | None:
    """An agent that is not there, or has no room, is an OSError."""
    return 0.0 if isinstance(error, OSError) else None
