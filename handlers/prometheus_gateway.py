"""Metrics pushed to a Prometheus Pushgateway."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from types import ModuleType
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote

from handlers.errors import CredentialsError, DeliveryError
from handlers.losses import Losses
from handlers.patience import given_up
from handlers.records import Site
from handlers.retrying import Retrying, retry_after
from handlers.secrets import Secrets, parts_of_url
from handlers.text import shorten

TIMEOUT: Final = 3.0
"""Seconds for one request."""
MOST_READ: Final = 65_536
MOST_SAID: Final = 300
"""Bytes that are read of a refusal, and characters that are shown of it."""

_PASSING: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class Gateway:
    """Puts a registry, as it is, in the place of what the gateway had in its group.

    Args:
        client: The package ``prometheus_client``.
        registry: What is pushed.
        site: Whose.
        url: The gateway's, checked.
        job: Names the group.
        grouping_key: Further labels that name it.
        interval: Seconds between two pushes.

    Attributes:
        shown: Where to look for what it pushes.
        unpushed: How many events the gateway has not heard of, without announcements of losses:
            these come with the next push, and are no reason for one.
        is_stale: Whether the gateway has something else than the registry.
    """

    def __init__(
        self,
        client: ModuleType,
        registry: Any,
        site: Site,
        *,
        url: SplitResult,
        job: str,
        grouping_key: Mapping[str, str],
        interval: float,
    ) -> None:
        place = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
        self.shown = f"{place}, job {job}"
        self._site = site
        self._place = place
        self._secrets = Secrets(*parts_of_url(url.geturl()))
        self._interval = interval
        self._due = 0.0
        self.unpushed = 0
        self.is_stale = False
        self._refusal = ""
        self._losses = Losses(site, "not_pushed")
        self._retrying = Retrying(
            site, f"the pushgateway {place}", passes=_passes, losses=self._losses
        )
        target = {
            "gateway": place,
            "job": job,
            "grouping_key": dict(grouping_key),
            "timeout": TIMEOUT,
            "handler": _handler(client, url),
        }
        self._put = partial(client.push_to_gateway, registry=registry, **target)
        self._delete = partial(client.delete_from_gateway, **target)

    def push_if_due(self, new: int = 0) -> None:
        """Push, unless that was done a moment ago or there is nothing new.

        What cannot be pushed comes with the next push, so that nobody waits for it here.

        Args:
            new: How many events came since the last call.
        """
        due = time.monotonic() >= self._due
        if (self.unpushed or new) and due:
            self._due = time.monotonic() + self._interval
            if self._push(self._retrying.once):
                new = 0
        self.unpushed += new

    def push(self) -> bool:
        """Push what is new; whether the gateway has it. While it is down, nobody waits here."""
        return not self.is_stale or self._push(self._retrying.once)

    def close(self, *, delete: bool) -> None:
        """Push for the last time, or take the group away."""
        try:
            if self._refusal:
                pass  # it would refuse that as well
            elif delete:
                self._attempt(self._delete, partial(self._retrying, size=0))
            elif self.is_stale:
                self._push(partial(self._retrying, size=0))
        finally:
            because = self._refusal or "the gateway could not be reached before the end"
            self._losses.add(0 if delete or given_up() else self.unpushed, because)
            self._losses.announce_rest()

    def _push(self, trying: Callable[[Callable[[], object]], bool]) -> bool:
        self.is_stale = pushed = False  # now: what comes meanwhile is not in it
        try:
            pushed = self._attempt(self._put, trying)
        finally:
            if pushed:
                self.unpushed = 0
            else:
                self.is_stale = True
        return pushed

    def _attempt(
        self, request: Callable[[], object], trying: Callable[[Callable[[], object]], bool]
    ) -> bool:
        self._refusal = ""
        try:
            return trying(request)
        except HTTPError as error:
            self._refusal = "the gateway refuses them"
            raise self._refused(error) from None

    def _refused(self, error: HTTPError) -> DeliveryError:
        with error:
            said = self._secrets.redact(error.read(MOST_READ).decode("utf-8", "replace").strip())
        about = (
            f"Handler {self._site.handler_id!r}: the pushgateway {self._place} answered "
            f"{error.code} {self._secrets.redact(error.reason)}"
        )
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return CredentialsError(
                f"{about}. Give a user and a password that it accepts: "
                "pushgateway='http://user:password@host:9091'."
            )
        return DeliveryError(f"{about}{f': {shorten(said, MOST_SAID)}' if said else ''}.")


def _handler(client: ModuleType, url: SplitResult) -> Any:
    """How the vendor sends a request: with a user and a password if the URL has them."""
    if url.username is None:
        return client.exposition.default_handler
    return partial(
        client.exposition.basic_auth_handler,
        username=unquote(url.username),
        password=unquote(url.password or ""),
    )


def _passes(error: Exception) -> float | None:
    if isinstance(error, HTTPError):
        if not (error.code in _PASSING or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR):
            return None
        error.close()
        return retry_after(error.headers.get("Retry-After"))
    return 0.0 if isinstance(error, OSError | http.client.HTTPException) else None
