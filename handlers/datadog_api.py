"""Statements to Datadog itself, over its HTTP API, where there is no agent."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from handlers.datadog_rollup import Rollup
from handlers.datadog_settings import Settings
from handlers.datadog_statements import STATUS_CODES, Check, Notice, Point, Told, hostname
from handlers.errors import CredentialsError, DeliveryError
from handlers.forks import renew_in_children
from handlers.losses import Losses
from handlers.patience import given_up
from handlers.records import Site
from handlers.retrying import Retrying, retry_after
from handlers.secrets import HTTP_LOGGERS, redact_urls
from telemetry.extras import import_extra

TIMEOUTS: Final = (3.0, 5.0)
"""Seconds for the connection and for the answer."""

MAX_BYTES: Final = 2_000_000
"""Of a request with several series."""

_REFUSED: Final = frozenset({401, 403})
_PASSES: Final = frozenset({408, 425, 429})
_TOO_LARGE: Final = 413
_MALFORMED: Final = frozenset({400, _TOO_LARGE, 422})
_SUCCESS: Final = range(200, 300)
_SERVER_ERROR: Final = 500


class AnswerError(Exception):
    """Datadog answered something else than yes.

    Attributes:
        status: The HTTP status.
        wait: Seconds for which it wants no further request, 0 if it does not say.
    """

    def __init__(self, status: int, said: str, wait: float) -> None:
        super().__init__(f"HTTP {status} {said}".strip())
        self.status = status
        self.wait = wait


class Outcome(NamedTuple):
    """What became of a request."""

    is_sent: bool
    refusal: str = ""
    is_too_large: bool = False


class Api:
    """Sends points summed up every ten seconds, events and service checks at once.

    Datadog's own HTTP client is not used: it keeps one key for the whole process, and shares a
    connection with forked children.

    Args:
        site: Whose.
        settings: Where the API is, and the keys.
        losses: Counts the events that are given up.
        refused: Counts the events that Datadog does not take.

    References:
        https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
    """

    def __init__(self, site: Site, settings: Settings, losses: Losses, refused: Losses) -> None:
        feature = f"Handler {site.handler_id!r}"
        self._requests: Any = import_extra("requests", extra="datadog", feature=feature)
        self._site = site
        self._url = settings.api_url.rstrip("/")
        self._place = redact_urls(self._url)
        self._headers = {"Content-Type": "application/json", **settings.headers}
        self._key_from = settings.key_from
        self._secrets = settings.secrets
        self._secrets.hide_in_logs(HTTP_LOGGERS)
        self._losses = losses
        self._refused = refused
        self._retrying = Retrying(
            site, self._place, passes=self._passes, losses=losses, secrets=self._secrets
        )
        self._host = hostname()
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Without the points of the parent, which sends them itself."""
        self._forget()

    def _forget(self) -> None:
        self._rollup = Rollup(self._host)
        self._earlier = 0  # events of earlier calls in the rollup
        self._flying = 0  # and in the requests that are being sent

    def kept(self) -> int:
        """How many events of earlier calls wait."""
        return self._earlier + self._flying

    def send(self, events: Sequence[Told]) -> int:
        """Sum points up and send the rest; nothing is too long."""
        # Before anything is added: what this gives up is no part of what the worker counts.
        # By the time of the points: what waited while the API was down comes in its own order.
        full = self._rollup.is_full()
        self._send_points(math.inf if full else min(self._rollup.latest, time.time()))
        checks: list[dict[str, Any]] = []
        asking: set[int] = set()
        failed: set[int] = set()
        for index, told in enumerate(events):
            for statement in told.statements:
                if isinstance(statement, Point):
                    self._rollup.add(statement)
                elif isinstance(statement, Check):
                    checks.append(self._check(statement))
                    asking.add(index)
                else:
                    outcome = self._post("/api/v1/events", orjson.dumps(self._event(statement)))
                    self._count(outcome, events, {index}, failed)
        if checks:
            outcome = self._post("/api/v1/check_run", orjson.dumps(checks))
            self._count(outcome, events, asking, failed)
        for index, told in enumerate(events):
            point = next((each for each in told.statements if isinstance(each, Point)), None)
            if point is not None and index not in failed:
                self._rollup.add_event(point.time_ns, told.size)
        return 0

    def idle(self) -> bool:
        """Send what has waited long enough; whether something waits still."""
        self._send_points(time.time())
        return bool(self._rollup)

    def flush(self) -> None:
        """Send what waits."""
        self._send_points(None)

    def close(self) -> None:
        """Send what waits."""
        self.flush()

    def _send_points(self, now: float | None) -> None:
        """Send the intervals that have ended, or all; what is there came with earlier calls."""
        if given_up():
            self._forget()  # who waited for the worker has counted it
            return
        self._earlier = self._rollup.events
        payloads, events = self._rollup.take(now)
        self._flying, self._earlier = events, self._earlier - events
        rest = payloads[::-1]
        unsent, uncounted = sum(each.points for each in rest), events
        while rest:
            payload = rest.pop()
            body = orjson.dumps({"series": [each.form for each in payload.series]})
            halves = payload.halves()
            if halves and len(body) > MAX_BYTES:
                rest += halves
                continue
            outcome = self._post(payload.path, body)
            if given_up():
                return
            if halves and outcome.is_too_large:
                rest += halves
                continue
            lost = 0 if outcome.is_sent else min(payload.points, uncounted)
            self._note(outcome, lost)
            uncounted -= lost
            unsent -= payload.points
            self._flying = min(uncounted, unsent)
        self._flying = 0

    def _count(
        self, outcome: Outcome, events: Sequence[Told], asking: set[int], failed: set[int]
    ) -> None:
        """Count the events of a request, unless they were sent, or counted for another one."""
        if not (outcome.is_sent or given_up()):
            self._note(outcome, sum(events[index].size for index in asking - failed))
            failed |= asking

    def _note(self, outcome: Outcome, size: int) -> None:
        losses = self._refused if outcome.refusal else self._losses
        losses.note(size, outcome.refusal or "no connection")

    def _post(self, path: str, body: bytes) -> Outcome:
        """Post it, for as long as the worker has patience."""
        if given_up():
            return Outcome(is_sent=False)
        attempt = partial(self._attempt, path, body)
        try:
            # What it gives up is counted here, where it is known how many events that is.
            return Outcome(is_sent=self._retrying(attempt, size=0))
        except AnswerError as answer:
            if answer.status in _MALFORMED:
                said = f"{self._place} answered {answer} to {path}"
                return Outcome(
                    is_sent=False, refusal=said, is_too_large=answer.status == _TOO_LARGE
                )
            refusal = self._refusal(answer)
        except self._requests.RequestException as error:
            refusal = self._secrets.error(error, f"Handler {self._site.handler_id!r}")
        # The events of this call are counted by who hears of the error.
        self._refused.note(self.kept(), "they waited when Datadog refused what came")
        self._forget()
        # Outside of the clause: what it is about has the keys in its frames.
        raise refusal

    def _attempt(self, path: str, body: bytes) -> None:
        url = self._url + path
        # No connection is kept: requests are rare, and a forked child must have no part in one.
        with self._requests.post(
            url,
            data=body,
            headers=self._headers,
            timeout=TIMEOUTS,
            allow_redirects=False,
            stream=True,  # the status is what counts, however the answer goes on
        ) as response:
            if response.status_code not in _SUCCESS:
                raise AnswerError(response.status_code, response.reason or "", _wait(response))

    def _passes(self, error: Exception) -> float | None:
        if isinstance(error, AnswerError):
            passes = error.status in _PASSES or error.status >= _SERVER_ERROR
            return error.wait if passes else None
        # Those that are ValueErrors speak of the request, and no further one would be different.
        passes = isinstance(error, self._requests.RequestException)
        return 0.0 if passes and not isinstance(error, ValueError) else None

    def _refusal(self, answer: AnswerError) -> DeliveryError:
        who = f"Handler {self._site.handler_id!r}: Datadog at {self._place} answered {answer}"
        if answer.status in _REFUSED:
            return CredentialsError(
                f"{who}: it does not take the API key, which came from {self._key_from}. "
                "Give a key of the site that api_host or DD_SITE names, by the option api_key or "
                "by DATADOG_API_KEY."
            )
        return DeliveryError(
            f"{who}, which no further attempt would change. Check the option api_host."
        )

    def _event(self, notice: Notice) -> dict[str, Any]:
        event = {
            "title": notice.title,
            "text": notice.text,
            "alert_type": notice.alert_type,
            "date_happened": notice.time_ns // 10**9,
            "host": self._host,
            "tags": list(notice.tags),
        }
        key = notice.aggregation_key
        return {**event, "aggregation_key": key} if key else event

    def _check(self, check: Check) -> dict[str, Any]:
        return {
            "check": check.name,
            "host_name": self._host,
            "status": STATUS_CODES[check.status],
            "timestamp": check.time_ns // 10**9,
            "message": check.message,
            "tags": list(check.tags),
        }


def _wait(response: Any) -> float:
    headers = response.headers
    return retry_after(headers.get("Retry-After") or headers.get("X-RateLimit-Reset"))
