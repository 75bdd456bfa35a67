"""Messages to Slack, Discord and other chats, and events as JSON to any URL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from handlers.clock import event_time_ns
from handlers.encoding import encode
from handlers.http_headers import check_headers
from handlers.losses import Losses, is_announcement
from handlers.patience import PATIENCE
from handlers.rate_limit import RateLimit
from handlers.records import Site
from handlers.retrying import Retrying
from handlers.secrets import Secrets, check_url, place_of_url
from handlers.webhook_apprise import AppriseClient
from handlers.webhook_client import BusyError, HttpClient
from handlers.webhook_messages import Messages, check_templates
from handlers.webhook_styles import APPRISE, CHATS, JSON_PER_SECOND, Style, guess
from handlers.webhook_templates import Writer
from telemetry import EventName

StyleName: TypeAlias = Literal["slack", "discord", "json", "apprise"]
"""Whose messages are posted."""

Example: TypeAlias = tuple[EventName, Mapping[str, Any], Mapping[str, Any]]

EXAMPLE: Final = "https://hooks.slack.com/services/..."
EXAMPLE_OF_APPRISE: Final = "ntfy://ntfy.sh/topic"
"""URLs as they should be, for messages about one that is not."""
STEP: Final[Example] = (("training", "step"), {"loss": 1.0}, {})
ALERT: Final[Example] = (
    ("alert", "raised"),
    {},
    {"rule": "telemetry-check", "severity": "info", "message": "telemetry check"},
)
SCHEMES: Final = ("https", "http")


class Client(Protocol):
    """What posts a body once."""

    place: str
    secrets: Secrets

    def post(self, body: Any, /) -> str:
        """Post it; why this one is refused, if it is."""

    def close(self) -> None:
        """Close what is open."""


class Webhook:
    """A sink that posts a message for each event that there is something to say of.

    A message that cannot be delivered now is tried again, in order, for as long as the handler is
    attached; one that is refused, or over the rate limit in a thread that must not wait, is
    counted and announced as ``telemetry.handler.overflow`` with the policy ``undelivered``.

    Args:
        site: Where it is attached.
        client: What posts.
        write: The body for an event; None for an event of which nothing is said.
        per_second: How many messages a second in the long run.
        example: An event of which something is said.
        says: Of events of which names something is said; None for all.
    """

    delivery = "background"

    def __init__(
        self,
        site: Site,
        client: Client,
        write: Callable[[EventName, Mapping[str, Any], Mapping[str, Any]], bytes | str | None],
        per_second: float,
        example: Example,
        says: Callable[[EventName], bool] | None = None,
    ) -> None:
        self._client = client
        self._says = says
        self._write = write
        self._example = example
        self._limit = RateLimit(per_second)
        self._losses = Losses(site, "undelivered")
        self._retrying = Retrying(
            site, client.place, passes=_passes, losses=self._losses, secrets=client.secrets
        )

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Post the message for an event.

        Raises:
            CredentialsError: The URL is not, or no longer, a webhook.
            DeliveryError: Nothing would ever pass.
        """
        body = self._write(event, measurements, metadata)
        size = 0 if is_announcement(event) else 1
        if body is not None and self._may_go(size):
            self._retrying(lambda: self._post(body, size), size=size)

    def hears(self, event: EventName) -> bool:
        """Whether something is said of events of a name."""
        return self._says is None or self._says(event)

    def check_event(self) -> Example:
        """An event of which something is said: in a chat, that is none of a step."""
        return self._example

    def where_to_look(self) -> str:
        """Where it posts, without the part of the URL that is a secret."""
        return self._client.place

    def close(self) -> None:
        """Close the connection; what comes later opens one again."""
        self._losses.announce_rest()
        self._client.close()

    def _post(self, body: bytes | str, size: int) -> None:
        refusal = self._client.post(body)
        if refusal:
            self._losses.add(size, refusal)

    def _may_go(self, size: int) -> bool:
        """Wait for the rate limit, where one may wait; the end of a run does not wait for it."""
        patience = PATIENCE.get()
        while seconds := self._limit.take(time.monotonic()):
            if patience is None:
                self._losses.add(size, f"more than {self._limit.per_second:g} messages a second")
                return False
            if patience.closing.is_set():
                return True
            if not patience.wait(seconds):
                return False  # given up, and counted, by who waited for the worker
        return True


def create(
    site: Site,
    *,
    url: str,
    style: StyleName | None = None,
    templates: Mapping[EventName, str | Writer | None] | None = None,
    headers: Mapping[str, str] | None = None,
    rate_limit: float | None = None,
    timeout: float = 5.0,
) -> Webhook:
    """Make the handler ``webhook``.

    Args:
        site: Where it is attached.
        url: Where to. All of it but the host is a secret.
        style: ``"slack"`` and ``"discord"`` post a text for each event that has a template;
            ``"json"`` posts each event that the handler hears, as a line of the handler ``jsonl``;
            ``"apprise"`` sends texts through that package, by its own kind of URL. By default
            what the URL looks like.
        templates: By event name, what is said instead of the default: a text with fields such as
            ``{loss:.3f}``; a function ``(event, measurements, metadata)`` that returns a text or
            None; or None to say nothing.
        headers: Headers of HTTP, such as ``{"Authorization": "Bearer ..."}``. They are secrets.
        rate_limit: Messages a second in the long run, 5 at once: by default 1 for Slack and
            apprise, 0.5 for Discord, no limit for JSON. ``math.inf`` is no limit.
        timeout: Seconds for a connection, and for an answer.

    Raises:
        MissingExtraError: The package ``requests``, or ``apprise``, is not installed.
        TypeError: An option has a wrong type.
        ValueError: The URL is malformed, a style does not exist, a template or a number cannot be.

    Example:
        >>> import handlers, telemetry
        >>> slack = handlers.attach("webhook", url="https://hooks.slack.com/services/T0/B0/token")
        >>> telemetry.detach("webhook")
    """
    name = _check_style(site, style, url)
    _check_number(site, "rate_limit", 1.0 if rate_limit is None else rate_limit, "2.0")
    _check_number(site, "timeout", timeout, "5.0")
    own = check_templates(site, templates)
    given = check_headers(site, headers)
    for option, value, meaningless in (
        ("templates", own, name == "json"),
        ("headers", given, name == "apprise"),
    ):
        if value and meaningless:
            raise ValueError(
                f"Handler {site.handler_id!r}: {option} have no meaning for the style {name!r}. "
                "Leave them out, or choose another style."
            )
    if name == "json":
        client = HttpClient(site, url, given, timeout)
        return Webhook(site, client, _record, rate_limit or JSON_PER_SECOND, STEP)
    return _chat(site, CHATS[name], url, own, given, rate_limit, timeout)


def _chat(
    site: Site,
    chat: Style,
    url: str,
    templates: dict[EventName, str | Writer | None],
    headers: dict[str, str],
    rate_limit: float | None,
    timeout: float,
) -> Webhook:
    messages = Messages(site.handler_id, templates, chat.escape)
    client: Client = (
        AppriseClient(site, url, timeout)
        if chat is APPRISE
        else HttpClient(site, url, headers, timeout)
    )

    def write(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> bytes | str | None:
        text = messages(event, measurements, metadata)
        return None if text is None else chat.body(text)

    return Webhook(site, client, write, rate_limit or chat.per_second, ALERT, messages.has)


def _record(
    event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bytes:
    return encode(event_time_ns(), event, measurements, metadata).rstrip()


def _passes(error: Exception) -> float | None:
    return error.seconds if isinstance(error, BusyError) else None


def _check_style(site: Site, style: object, url: object) -> str:
    """The style, and a URL that fits it."""
    styles = get_args(StyleName)
    if style is not None and style not in styles:
        raise ValueError(
            f"Handler {site.handler_id!r}: style must be one of {styles!r}, or None for what the "
            f"URL looks like, got {style!r}."
        )
    scheme, found, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    foreign = bool(found) and scheme.lower() not in SCHEMES
    if style in (None, "apprise") and foreign:
        return "apprise"
    if style == "apprise" or foreign:
        raise ValueError(
            f"Handler {site.handler_id!r}: url {place_of_url(str(url))!r} does not fit the style "
            f"{style!r}. Write url={EXAMPLE_OF_APPRISE if style == 'apprise' else EXAMPLE!r}."
        )
    check_url(site.handler_id, url, schemes=SCHEMES, example=EXAMPLE, path_is_secret=True)
    return str(style) if style is not None else guess(str(url))


def _check_number(site: Site, what: str, number: object, example: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise TypeError(
            f"Handler {site.handler_id!r}: {what} must be a number, got {number!r} "
            f"({type(number).__name__}). Write {what}={example}."
        )
    most = threading.TIMEOUT_MAX if what == "timeout" else inf
    if not 0 < number <= most:
        raise ValueError(
            f"Handler {site.handler_id!r}: {what} must be more than 0 and at most {most:g}, got "
            f"{number!r}. "
            f"Write {what}={example}."
        )
