"""Keys, tokens and passwords: used, and never shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, quote, quote_plus, unquote, urlsplit

from handlers.errors import DeliveryError

HIDDEN: Final = "***"
SHORTEST: Final = 4
"""What is shorter is no secret, and would be found in every other word."""
HTTP_LOGGERS: Final = (
    "requests",
    "urllib3",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
"""Under which names requests logs, and what it stands on."""

_AFTER_SCHEME: Final = re.compile(r"(?<=://)([^\s\"'<>/?#]*)([^\s\"'<>]*)")
_PLACE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s\"'<>]+)")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+)=[^&#\s]+")


class Secrets:
    """Values that must not be seen in a log, a ``repr``, an event or an error.

    Args:
        *values: The secrets; None and what is shorter than 4 characters is left out.

    Example:
        >>> secrets = Secrets("0123456789abcdef", None)
        >>> secrets.redact("POST /hooks/0123456789abcdef failed"), secrets
        ('POST /hooks/*** failed', Secrets(***))
    """

    def __init__(self, *values: str | None) -> None:
        forms = {form for value in values if value for form in _forms(value)}
        self._forms = _ordered(form for form in forms if len(form) >= SHORTEST)

    def __or__(self, other: Secrets) -> Secrets:
        """Both together."""
        both = Secrets()
        both._forms = _ordered({*self._forms, *other._forms})
        return both

    def __repr__(self) -> str:
        return f"Secrets({HIDDEN})"

    def redact(self, shown: object) -> str:
        """A text, or the text of an object, with each secret replaced."""
        text = str(shown)
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return redact_urls(text)

    def error(self, error: BaseException, about: str = "") -> DeliveryError:
        """An error that says the same without the secrets; raise it ``from None``.

        The vendor's own, which it replaces, has the secrets in its arguments, in its causes and in
        the frames of its traceback.
        """
        said = self.redact(f"{type(error).__name__}: {error}")
        return DeliveryError(f"{about}: {said}" if about else said)

    def hide_in_logs(self, names: Iterable[str]) -> None:
        """Redact what is logged under these names, which are a vendor's loggers.

        That stays so when the sink is closed: a vendor's thread may outlive it.

        Args:
            names: Each by itself. What is logged under ``"a.b"`` does not pass the filters of
                the logger ``"a"``.
        """
        for name in names:
            logger = logging.getLogger(name)
            filters = [known for known in logger.filters if isinstance(known, _Redacting)]
            if not filters:
                filters = [_Redacting()]
                logger.addFilter(filters[0])
            filters[0].add(self)


class _Redacting(logging.Filter):
    """Changes each record of a logger before any handler of the program sees it."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets = Secrets()

    def add(self, secrets: Secrets) -> None:
        """Redact these as well."""
        # In one: where one sink's secret is a part of another's, the longer one must go first.
        self._secrets |= secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the secrets."""
        try:
            said = record.getMessage()
        except Exception:
            # Arguments that do not fit: logging itself would print them, unredacted.
            said = str(record.msg)
        record.msg, record.args = self._secrets.redact(said), None
        if record.exc_info:
            record.exc_text = self._secrets.redact(
                logging.Formatter().formatException(record.exc_info)
            )
            record.exc_info = None
        if record.stack_info:
            record.stack_info = self._secrets.redact(record.stack_info)
        return True


def redact_urls(text: str) -> str:
    """A text in which no URL shows who is sending, or the values of its query.

    Example:
        >>> redact_urls("redis://user:password@host:6379/0 http://host/x?token=abc&y=1")
        'redis://***@host:6379/0 http://host/x?token=***&y=***'
    """
    return _QUERY.sub(rf"\1={HIDDEN}", _AFTER_SCHEME.sub(_without_sender, text))


def _without_sender(match: re.Match[str]) -> str:
    host, rest = match.groups()
    if "@" in rest:
        # A password that nobody quoted, with a "/" in it? Or a path with an "@"? Who knows.
        return HIDDEN
    sender, _, host = host.rpartition("@")
    return f"{HIDDEN}@{host}{rest}" if sender else host + rest


def parts_of_url(url: str) -> list[str]:
    """What is secret in a URL by itself: user, password, and the values of its query.

    Example:
        >>> parts_of_url("http://user:pass@host/x?token=abc")
        ['user', 'pass', 'abc']
    """
    split = urlsplit(url)
    values = [value for pair in split.query.split("&") if (value := pair.partition("=")[2])]
    return [part for part in (split.username, split.password, *values) if part]


def parts_of_header(value: str) -> list[str]:
    """What is secret in a header's value by itself: of ``Bearer token``, the token too.

    Example:
        >>> parts_of_header("Bearer%20token")
        ['Bearer%20token', 'Bearer token', 'token']
    """
    plain = unquote(value)
    return [value, plain, *plain.split()[1:]]


def place_of_url(url: str) -> str:
    """A URL whose path is a secret, as it may be shown: where it leads, and no more.

    Never raises, whatever the text is.

    Example:
        >>> place_of_url("https://hooks.slack.com/services/T0/B0/token")
        'https://hooks.slack.com/***'
        >>> place_of_url("hooks.slack.com/services/T0/B0/token")
        '***'
    """
    match = _PLACE.match(redact_urls(url))
    if match is None:
        return HIDDEN
    scheme, host = match.groups()
    return f"{scheme}://{host.rpartition('@')[2]}/{HIDDEN}".replace(f"{HIDDEN}/{HIDDEN}", HIDDEN)


def check_url(
    site_id: object,
    url: object,
    *,
    schemes: Sequence[str],
    example: str,
    option: str = "url",
    path_is_secret: bool = False,
) -> Any:
    """The parts of a URL.

    Args:
        site_id: The handler's id.
        url: What was given.
        schemes: What it may begin with.
        example: One that is right.
        option: What the handler calls it.
        path_is_secret: Whether an error may show no more of it than the host.

    Raises:
        TypeError: It is no string.
        ValueError: It has another scheme, no host, or a port out of range. What is shown of it has
            no secrets.
    """
    if not isinstance(url, str):
        raise TypeError(
            f"Handler {site_id!r}: {option} must be a string, got {type(url).__name__}. "
            f"Write {option}={example!r}."
        )
    split = _split(url)
    if split is not None and split.scheme in schemes and _leads_somewhere(split):
        return split
    shown = place_of_url(url) if path_is_secret else redact_urls(url)
    raise ValueError(
        f"Handler {site_id!r}: {option} {shown!r} is malformed. It must begin with "
        f"{' or '.join(f'{scheme}://' for scheme in schemes)} and name a host, with a port from "
        f"1 to 65535 if any, such as {example!r}."
    )


def _leads_somewhere(split: SplitResult) -> bool:
    # A path alone is a socket's, or a server's on its default host; HTTP has none.
    return bool(split.hostname or (split.path and not split.scheme.startswith("http")))


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None if there is something wrong with its host or port."""
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return None  # what it says would quote a password with a "/" in it, taken for a port
    return None if port == 0 else split


def _ordered(forms: Iterable[str]) -> list[str]:
    """Longest first: one can be a part of another."""
    return sorted(forms, key=len, reverse=True)


def _forms(value: str) -> set[str]:
    """A secret as it is, as it is written in a URL, and as a ``repr`` has it."""
    plain = unquote(value)
    return {value, plain, quote(plain), quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1]}
