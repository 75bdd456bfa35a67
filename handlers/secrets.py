"""Keys, tokens and passwords: used, and never shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

from handlers.errors import DeliveryError

HIDDEN: Final = "***"
SHORTEST: Final = 4
"""What is shorter is no secret, and would be found in every other word."""

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s@?#]*@")
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
        # Longest first: one can be a part of another.
        self._forms = sorted((f for f in forms if len(f) >= SHORTEST), key=len, reverse=True)

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
        """Redact what is logged under these names, which are a vendor's loggers."""
        for name in names:
            logger = logging.getLogger(name)
            if not any(isinstance(known, _Redacting) for known in logger.filters):
                logger.addFilter(_Redacting())
            for known in logger.filters:
                if isinstance(known, _Redacting):
                    known.secrets.append(self)


class _Redacting(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.secrets: list[Secrets] = []

    def filter(self, record: logging.LogRecord) -> bool:
        shown = self._redact(record.getMessage())
        record.msg, record.args = shown, None
        if record.exc_info:
            record.exc_text = self._redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True

    def _redact(self, text: str) -> str:
        for secrets in self.secrets:
            text = secrets.redact(text)
        return text


def redact_urls(text: str) -> str:
    """A text in which no URL shows who is sending, or the values of its query.

    Example:
        >>> redact_urls("redis://user:password@host:6379/0 http://host/x?token=abc&y=1")
        'redis://***@host:6379/0 http://host/x?token=***&y=***'
    """
    return _QUERY.sub(rf"\1={HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", text))


def parts_of_url(url: str) -> list[str]:
    """What is secret in a URL by itself: user, password, and the values of its query.

    Example:
        >>> parts_of_url("http://user:pass@host/x?token=abc")
        ['user', 'pass', 'abc']
    """
    split = urlsplit(url)
    values = [value for pair in split.query.split("&") if (value := pair.partition("=")[2])]
    return [part for part in (split.username, split.password, *values) if part]


def _forms(value: str) -> set[str]:
    """A secret as it is, and as it is written in a URL."""
    plain = unquote(value)
    return {value, plain, quote(plain), quote(plain, safe=""), quote_plus(plain)}


def check_url(site_id: object, url: object, *, schemes: Iterable[str], example: str) -> Any:
    """The parts of a URL.

    Raises:
        TypeError: It is no string.
        ValueError: It has another scheme, no host, or a port out of range. What is shown of it has
            no secrets.
    """
    if not isinstance(url, str):
        raise TypeError(
            f"Handler {site_id!r}: url must be a string, got {type(url).__name__}. "
            f"Write url={example!r}."
        )
    shown = redact_urls(url)
    allowed = tuple(schemes)
    try:
        split = urlsplit(url)
        port_is_fine = split.port is None or split.port > 0
    except ValueError as error:
        raise ValueError(f"Handler {site_id!r}: url {shown!r} is malformed: {error}.") from None
    if split.scheme not in allowed or not (split.hostname or split.path) or not port_is_fine:
        raise ValueError(
            f"Handler {site_id!r}: url {shown!r} is malformed. It must begin with "
            f"{' or '.join(f'{scheme}://' for scheme in allowed)} and name a host, such as "
            f"{example!r}."
        )
    return split
