"""Posting to a webhook, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from handlers.errors import CredentialsError, DeliveryError
from handlers.forks import renew_in_children
from handlers.records import Site
from handlers.retrying import LONGEST_WAIT, retry_after
from handlers.secrets import HTTP_LOGGERS, Secrets, parts_of_header, place_of_url
from handlers.text import value_text
from telemetry.extras import import_extra

MOST_SAID: Final = 4096
"""Bytes of an answer that are read."""

_SEPARATORS: Final = re.compile(r"[/?&=#]")
_PLAIN: Final = frozenset({"api", "hooks", "services", "triggers", "webhooks", "workflows"})
"""What the paths of all Slack's and Discord's webhooks have."""

_SUCCESS: Final = range(200, 300)
_SERVER_ERROR: Final = range(500, 600)
_PASSES: Final = frozenset({408, 425, 429})
_UNKNOWN: Final = frozenset({401, 403, 404, 410})
_BAD_MESSAGE: Final = frozenset({400, 413, 422})


class BusyError(Exception):
    """The other end cannot take a message now.

    Attributes:
        seconds: How long it wants to be left alone, 0 if it does not say.
    """

    def __init__(self, said: str, seconds: float) -> None:
        super().__init__(said)
        self.seconds = seconds


class HttpClient:
    """Posts JSON to one URL, over connections that are kept.

    Args:
        site: Whose.
        url: Where to.
        headers: Headers beside those of JSON.
        timeout: Seconds, for the connection and for the answer.

    Attributes:
        place: The URL as it may be shown.
        secrets: What must not be shown.
    """

    def __init__(self, site: Site, url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._requests: Any = import_extra("requests", extra="webhook", feature="Handler 'webhook'")
        self._site = site
        self._timeout = timeout
        self.place = place_of_url(url)
        words = (part for value in headers.values() for part in parts_of_header(value))
        self.secrets = Secrets(url, *_parts(url), *words)
        self.secrets.hide_in_logs(HTTP_LOGGERS)
        own = {"Content-Type": "application/json", "User-Agent": "trainbus"}
        self._request = self._prepared(url, own | dict(headers))
        self._inherited: list[Any] = []
        self._session = self._requests.Session()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Open connections of our own; the parent's are left alone, with their locks."""
        self._inherited.append(self._session)
        self._session = self._requests.Session()

    def post(self, body: bytes) -> str:
        """Post a body once.

        Returns:
            Nothing if it arrived, else why this one message is refused.

        Raises:
            BusyError: It would pass later.
            CredentialsError: The URL is not, or no longer, a webhook.
            DeliveryError: Nothing would ever pass.
        """
        request = self._request.copy()
        request.prepare_body(body, None)
        try:
            status, headers, said = self._exchange(request)
        except OSError as error:  # what requests raises is one
            trouble = self.secrets.redact(f"{type(error).__name__}: {error}")
        else:
            seconds = retry_after(headers.get("Retry-After")) or asked_in(said)
            return verdict(self._site, self.place, status, self._text(status, said), seconds)
        # Outside of the clause: the vendor's error, which shows the URL, is not to be chained.
        raise BusyError(trouble, 0.0)

    def close(self) -> None:
        """Close the connections; a late message opens one again."""
        self._session.close()

    def _prepared(self, url: str, headers: dict[str, str]) -> Any:
        try:
            return self._requests.Request("POST", url, headers=headers).prepare()
        except (self._requests.RequestException, ValueError):
            # What it says would show them.
            problem = f"Handler {self._site.handler_id!r}: {self.place} cannot be posted to"
        raise ValueError(f"{problem}: its url or headers are malformed.")

    def _exchange(self, request: Any) -> tuple[int, Mapping[str, str], bytes]:
        # Proxies and certificates are those that the environment names, as for everything else.
        options = self._session.merge_environment_settings(
            request.url, proxies={}, stream=True, verify=None, cert=None
        )
        timeout = (self._timeout, self._timeout)
        with self._session.send(
            request, timeout=timeout, allow_redirects=False, **options
        ) as response:
            try:
                said = next(response.iter_content(MOST_SAID), b"")
            except self._requests.RequestException:
                said = b""  # the status is what counts
            return response.status_code, response.headers, said

    def _text(self, status: int, said: bytes) -> str:
        phrase = next((known.phrase for known in HTTPStatus if known == status), "")
        words = value_text(self.secrets.redact(said.decode(errors="replace").strip()))
        return f"{status} {phrase}".strip() + (f" ({words})" if words else "")


def verdict(site: Site, place: str, status: int, answer: str, seconds: float) -> str:
    """What a status says: nothing to say, why one message is refused, or an error.

    Raises:
        BusyError: It would pass later.
        CredentialsError: The URL is not, or no longer, a webhook.
        DeliveryError: Nothing would ever pass.
    """
    if status in _SUCCESS:
        return ""
    if status in _PASSES or status in _SERVER_ERROR:
        raise BusyError(f"it answered {answer}", seconds)
    if status in _BAD_MESSAGE:
        return f"{place} refused a message: {answer}"
    who = f"Handler {site.handler_id!r}: {place} answered {answer}"
    if status in _UNKNOWN:
        raise CredentialsError(
            f"{who}: the URL in the option url is not, or no longer, a webhook that this program "
            "may post to. Make a new one, and give it as url=..."
        )
    raise DeliveryError(f"{who}, which no further attempt would change. Check the option url.")


def asked_in(said: bytes) -> float:
    """For how many seconds Discord wants to be left alone, by the body of its answer.

    Source: https://docs.discord.com/developers/topics/rate-limits

    Example:
        >>> asked_in(b'{"retry_after": 0.65}'), asked_in(b"ok")
        (0.65, 0.0)
    """
    try:
        seconds = float(orjson.loads(said)["retry_after"])
    except (ValueError, TypeError, KeyError):
        return 0.0
    return min(seconds, LONGEST_WAIT) if seconds > 0 else 0.0


def _parts(url: str) -> list[str]:
    """What is secret in the URL of a webhook: all that comes after the host, in any piece."""
    _, _, rest = url.partition("://")
    sender = rest.rpartition("@")[0]
    path = rest.partition("/")[2]
    pieces = {*sender.split(":", 1), *_SEPARATORS.split(path)} - _PLAIN
    return [sender, path, path.partition("?")[0], *pieces]
