"""A Redis server: where it is, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from typing import Any, Final
from urllib.parse import parse_qs

from handlers.errors import CredentialsError, DeliveryError
from handlers.options import check_seconds
from handlers.secrets import Secrets, check_url, parts_of_url, redact_urls
from telemetry.extras import import_extra

EXAMPLE: Final = "redis://127.0.0.1:6379/0"
PORT: Final = 6379
SCHEMES: Final = ("redis", "rediss", "unix")

# Codes for which the vendor has no class of its own. The disk is full, a script runs, a replica is
# away, a stream was deleted under a reader: it is mended there, and not here.
_TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout")
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_PASSING: Final = frozenset({"MISCONF", "BUSY", "NOREPLICAS", "UNBLOCKED"})


class RedisServer:
    """Makes clients of one server, and tells its errors apart.

    Nothing is connected before a client is used.

    Args:
        owner: Whose option the URL is, for messages.
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``.
        timeout: Seconds to wait for a connection or an answer.
        feature: What needs the vendor's package.

    Raises:
        TypeError: The URL is no string, or the timeout no number.
        ValueError: One of them cannot be used.
        MissingExtraError: The package ``redis`` is not installed.

    Example:
        >>> server = RedisServer("redis", "redis://user:secret@127.0.0.1:6379/0", timeout=3.0)
        >>> server.shown
        'redis://***@127.0.0.1:6379/0'
    """

    def __init__(
        self, owner: Hashable, url: str, *, timeout: float, feature: str = "Handler 'redis'"
    ) -> None:
        check_redis_url(owner, url)
        check_seconds(f"Handler {owner!r}: timeout", timeout)
        self._redis = import_extra("redis", extra="redis", feature=feature)
        self._owner = owner
        self._url = url
        self._timeout = timeout
        self.secrets = Secrets(*parts_of_url(url))
        self.shown = redact_urls(url)
        self._try_out()

    @property
    def place(self) -> tuple[object, ...]:
        """The same for two URLs of one database, as far as the URLs tell."""
        options = self._options
        host = options.get("host", _LOOPBACK[0])
        return (
            options.get("path") or (_LOOPBACK[0] if host in _LOOPBACK else host),
            None if "path" in options else options.get("port", PORT),
            int(options.get("db", 0)),
        )

    def client(self) -> Any:
        """A new client, which is not connected yet."""
        return self._redis.Redis.from_url(
            self._url, socket_timeout=self._timeout, socket_connect_timeout=self._timeout
        )

    def passes(self, error: Exception) -> float | None:
        """0 for an error that passes by itself, None for one that does not; see `Retrying`."""
        errors = self._redis.exceptions
        if isinstance(error, (errors.AuthenticationError, errors.AuthorizationError)):
            return None  # they are connection errors to the vendor
        passing = (
            errors.ConnectionError,
            errors.TimeoutError,
            errors.OutOfMemoryError,
            errors.ReadOnlyError,
            errors.ClusterDownError,
            errors.TryAgainError,
            OSError,
        )
        code = str(error).partition(" ")[0]
        return 0.0 if isinstance(error, passing) or code in _PASSING else None

    def refusal(self, error: Exception, about: str) -> DeliveryError:
        """What to raise, ``from None``, for an error that does not pass."""
        errors = self._redis.exceptions
        said = self.secrets.redact(f"{type(error).__name__}: {error}")
        credentials = (
            errors.AuthenticationError,
            errors.AuthorizationError,
            errors.AuthenticationWrongNumberOfArgsError,
            errors.NoPermissionError,
        )
        if isinstance(error, credentials):
            return CredentialsError(
                f"{about}: {self.shown} does not accept who is sending ({said}). User and password "
                "come from the option 'url' or, without it, from the variable REDIS_URL: "
                "redis://USER:PASSWORD@HOST:PORT/DB."
            )
        return DeliveryError(f"{about}: {self.shown} refuses it: {said}")

    def _try_out(self) -> None:
        """Find out now what the vendor makes of the options in the URL."""
        try:
            pool = self.client().connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, self._redis.RedisError) as error:
            said = self.secrets.redact(error)
            unknown = re.search(r"unexpected keyword argument ('\w+')", said)
            problem = f"There is no {unknown[1]}." if unknown else f"{said.rstrip('.')}."
            raise ValueError(
                f"Handler {self._owner!r}: url {self.shown!r} has an option that cannot be used. "
                f"{problem} Allowed after the '?' are the options of redis.Redis."
            ) from None
        self._options: dict[str, Any] = pool.connection_kwargs
        for name in _FILES:
            path = self._options.get(name)
            if path is not None and not os.path.exists(path):  # noqa: PTH110 -- as the vendor does
                raise ValueError(
                    f"Handler {self._owner!r}: url {self.shown!r} names a file as {name} that is "
                    "not there. Give one that is."
                )


def check_redis_url(owner: Hashable, url: object) -> None:
    """Raise for what is no URL of a Redis server.

    Raises:
        TypeError: It is no string.
        ValueError: It is malformed, or its path is no number of a database.
    """
    split = check_url(owner, url, schemes=SCHEMES, example=EXAMPLE)
    shown = redact_urls(str(url))
    for name in _TIMEOUTS:
        if name in parse_qs(split.query):
            raise ValueError(
                f"Handler {owner!r}: url {shown!r} has the option {name!r}. Leave it out, and give "
                "the handler's option timeout=..."
            )
    if split.scheme == "unix":
        if split.path.strip("/"):
            return
        problem = "It must name a socket: 'unix:///run/redis/redis.sock?db=0'"
    elif not split.hostname:
        problem = f"It must name a host, such as {EXAMPLE!r}"
    elif not re.fullmatch(r"/?\d*", split.path):
        problem = f"After the host it can have the number of a database: {EXAMPLE!r}"
    else:
        return
    raise ValueError(f"Handler {owner!r}: url {shown!r} is malformed. {problem}.")
