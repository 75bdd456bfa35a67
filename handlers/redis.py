"""Events as entries of a Redis Stream, from which `telemetry relay` hands them to other handlers.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from handlers.clock import event_time_ns
from handlers.encoding import encode
from handlers.forks import renew_in_children
from handlers.losses import Losses, countable
from handlers.options import check_count
from handlers.records import Site, TimedEvent
from handlers.redis_server import EXAMPLE, RedisServer
from handlers.retrying import Retrying
from telemetry import EventName
from telemetry.ranks import rank

VARIABLE: Final = "REDIS_URL"


class RedisStream:
    """A sink that adds each event to a stream: one round trip for all that came together.

    An entry has the fields

    - ``record``: the event as the handler ``jsonl`` writes it;
    - ``time_ns``: when it was emitted, in nanoseconds since 1970 (UTC);
    - ``id``: unique, the same when the entry is sent again because the answer was lost;
    - ``host``, ``pid``, and ``rank`` where there is one.

    Args:
        site: Where it is attached.
        server: Where the stream is.
        stream: Its key.
        max_length: How many entries it keeps, or a few more.
    """

    delivery = "background"

    def __init__(self, site: Site, server: RedisServer, *, stream: str, max_length: int) -> None:
        self._site = site
        self._server = server
        self._stream = stream
        self._max_length = max_length
        self._losses = Losses(site, "redis_unreachable")
        self._retrying = Retrying(
            site,
            server.shown,
            passes=server.passes,
            losses=self._losses,
            secrets=server.secrets,
        )
        self._closed = False
        self._inherited: Any = None
        self._renew()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A connection and a name of the child's own.

        The parent's client is kept: its destructor takes locks, and who held them is not here.
        """
        self._inherited = (self._inherited, self._client)
        self._renew()

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Add one event, in the thread of whoever calls."""
        self.deliver_many([TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))])
        if self._closed:
            self._client.close()

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Add what came.

        Raises:
            CredentialsError: The server does not accept the user or the password, or does not
                allow the user to write there.
            DeliveryError: It refuses the entries for another reason that does not pass.
        """
        waiting = self._entries(batch)

        def send() -> None:
            nonlocal waiting
            pipeline = self._client.pipeline(transaction=False)
            for entry in waiting:
                pipeline.xadd(self._stream, entry, maxlen=self._max_length, approximate=True)
            answers = pipeline.execute(raise_on_error=False)
            # Each entry has an answer of its own: what is there need not be sent again.
            refused = [
                (entry, answer)
                for entry, answer in zip(waiting, answers, strict=True)
                if isinstance(answer, Exception)
            ]
            waiting = [entry for entry, _ in refused]
            if refused:
                raise refused[0][1]

        try:
            self._retrying(send, size=countable(batch))
        except Exception as error:
            about = f"Handler {self._site.handler_id!r}, stream {self._stream!r}"
            raise self._server.refusal(error, about) from None

    def close(self) -> None:
        """End the connection; an event that comes later has one of its own."""
        self._closed = True
        self._losses.announce_rest()
        self._client.close()

    def writes_to(self, server: RedisServer, stream: str) -> bool:
        """Whether a stream of a server is the one that it adds to."""
        return stream == self._stream and server.place == self._server.place

    def where_to_look(self) -> str:
        """The command that shows the newest entry."""
        return f"{self._server.shown}, with redis-cli: XREVRANGE {self._stream} + - COUNT 1"

    def _renew(self) -> None:
        self._client = self._server.client()
        # A process's number comes again, and a host's name can be another's in another container.
        self._source = f"{random.SystemRandom().getrandbits(64):016x}"
        self._numbers = itertools.count(1)
        self._origin: dict[str, str | int] = {"host": socket.gethostname(), "pid": os.getpid()}

    def _entries(self, batch: Sequence[TimedEvent]) -> list[dict[str, Any]]:
        number = rank()
        origin = self._origin if number is None else {**self._origin, "rank": number}
        return [
            {
                "record": encode(*event).rstrip(b"\n"),
                "time_ns": event.time_ns,
                "id": f"{self._source}-{next(self._numbers)}",
                **origin,
            }
            for event in batch
        ]


def create(
    site: Site,
    *,
    url: str | None = None,
    stream: str = "trainbus",
    max_length: int = 1_000_000,
    timeout: float = 3.0,
) -> RedisStream:
    """Make the handler ``redis``.

    Args:
        site: Where it is attached.
        url: The server: ``redis://USER:PASSWORD@HOST:PORT/DB``, ``rediss://`` for TLS, or
            ``unix:///path/of/socket?db=0``. By default what ``REDIS_URL`` says, or
            ``redis://127.0.0.1:6379/0``. Nothing is connected before the first event.
        stream: The stream's key.
        max_length: How many entries the stream keeps: the oldest go when there are more. It is
            approximate: Redis removes entries in blocks of about a hundred.
        timeout: Seconds to wait for a connection or an answer.

    Raises:
        TypeError: An option of a wrong type.
        ValueError: One of a wrong value.
        MissingExtraError: The package ``redis`` is not installed.

    Example:
        >>> import handlers, telemetry
        >>> redis = handlers.attach("redis", url="redis://127.0.0.1:6379/0", ranks="all")
        >>> telemetry.detach("redis")
    """
    check_count("max_length", max_length)
    if not isinstance(stream, str):
        raise TypeError(
            f"Handler {site.handler_id!r}: stream must be a string, got {stream!r} "
            f"({type(stream).__name__}). Write stream='trainbus'."
        )
    if not stream:
        raise ValueError(
            f"Handler {site.handler_id!r}: stream must name a stream, got {stream!r}. "
            "Write stream='trainbus'."
        )
    server = RedisServer(site.handler_id, url_or_default(url), timeout=timeout)
    return RedisStream(site, server, stream=stream, max_length=max_length)


def url_or_default(url: str | None) -> str:
    """The URL that is meant: the one given, that of ``REDIS_URL``, or this machine's.

    Example:
        >>> url_or_default("redis://redis.example:6379/0")
        'redis://redis.example:6379/0'
    """
    return os.environ.get(VARIABLE) or EXAMPLE if url is None else url
