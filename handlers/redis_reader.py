"""Entries of a Redis Stream, shared with the other consumers of a group.

Source: https://redis.io/docs/latest/commands/xreadgroup/
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from handlers.decoding import decode
from handlers.losses import Losses
from handlers.records import Site, TimedEvent
from handlers.redis_server import RedisServer
from handlers.retrying import Retrying

CHECK: Final = 1.0
"""Seconds between two looks at what was removed unread."""

BEGINNING: Final = "0-0"
"""What comes before the first entry."""

T = TypeVar("T")
Raw: TypeAlias = tuple[Any, Mapping[Any, Any] | None]
"""A key and fields, as the vendor gives them."""

logger = logging.getLogger("telemetry")


class StreamEntry(NamedTuple):
    """What was read.

    Attributes:
        key: Its place in the stream.
        origin: The same for all entries that one event became; None if it does not say.
        event: None if it is not readable.
        problem: Why not.
    """

    key: str
    origin: str | None
    event: TimedEvent | None
    problem: str = ""


class StreamReader:
    """A consumer of a group: each entry goes to one of them, until it is acknowledged.

    While the server is away, it goes on trying, and says so once. What a consumer had when it died
    goes to another one after a while, or to itself when it comes back under its name.

    Args:
        site: In whose name it speaks.
        server: Where the stream is.
        stream: Its key.
        group: The name under which the server remembers what was read.
        consumer: This reader's name in it.
        from_start: Whether a group that does not exist yet begins with what is there.
        claim_after: Seconds after which an entry that a consumer has not acknowledged is taken
            from it.
    """

    def __init__(
        self,
        site: Site,
        server: RedisServer,
        *,
        stream: str,
        group: str,
        consumer: str,
        from_start: bool = True,
        claim_after: float = 60.0,
    ) -> None:
        self._server = server
        self._client = server.client()
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._from_start = from_start
        self._claim_after = claim_after
        self._own: str | None = BEGINNING  # after which of those that are ours it looks for more
        self._claim_at = 0.0
        self._claim_from = BEGINNING
        self._check_at = 0.0
        self._missed = (-1, 0)
        self._removed = Losses(site, "trimmed")
        self._retrying = Retrying(
            site,
            server.shown,
            passes=server.passes,
            losses=Losses(site, "redis_unreachable"),
            secrets=server.secrets,
        )

    def __str__(self) -> str:
        return (
            f"stream {self._stream!r} of {self._server.shown} "
            f"(group {self._group!r}, consumer {self._consumer!r})"
        )

    @property
    def is_down(self) -> bool:
        """Whether the server could not be reached when it was asked last."""
        return self._retrying.is_down

    @property
    def hold_after(self) -> float:
        """Seconds after which to `hold` what takes long."""
        return self._claim_after / 3

    def open(self) -> None:
        """Make the group, unless there is one."""
        self._call(lambda: self._make_group("0" if self._from_start else "$"))

    def next(self, count: int, *, wait: float) -> list[StreamEntry]:
        """Some entries: those that are its own already, then those of the dead, then new ones.

        Args:
            count: How many at most.
            wait: Seconds to wait for new ones; less than the server's timeout.

        Raises:
            DeliveryError: The server refuses to give any.
        """
        while self._own is not None:
            raw = self._read(self._own, count, wait)
            if self.is_down:
                return []
            # By what was answered: of a whole answer, only the numbers may be left.
            self._own = _text(raw[-1][0]) if raw else None
            entries = self._readable(raw)
            if entries:
                return entries
        now = time.monotonic()
        if now >= self._claim_at:
            entries = self._claim(count)
            if entries:
                return entries
            self._claim_at = now + max(self._claim_after / 2, CHECK)
        if now >= self._check_at:
            self._check_removed()
            self._check_at = now + CHECK
        return self._readable(self._read(">", count, wait))

    def acknowledge(self, entries: Iterable[StreamEntry]) -> bool:
        """Say that they need not be delivered again; False if the server did not hear it."""
        keys = [entry.key for entry in entries]
        return self._call(lambda: self._client.xack(self._stream, self._group, *keys)) is not None

    def hold(self, entries: Iterable[StreamEntry]) -> None:
        """Say that they are being worked on, so that nobody else claims them."""
        keys = [entry.key for entry in entries]
        self._call(
            lambda: self._client.xclaim(
                self._stream, self._group, self._consumer, 0, keys, justid=True
            )
        )

    def leave(self) -> None:
        """Take the consumer's name from the group, unless something is still its own."""
        place = (self._stream, self._group)

        def leave() -> None:
            mine = self._client.xpending_range(*place, "-", "+", 1, consumername=self._consumer)
            if not mine:
                self._client.xgroup_delconsumer(*place, self._consumer)

        self._call(leave)

    def close(self) -> None:
        """End the connection."""
        self._removed.announce_rest()
        self._client.close()

    def _call(self, call: Callable[[], T]) -> T | None:
        """What ``call`` returns; None if the server is away and nobody has patience any more."""
        answers: list[T] = []

        def attempt() -> None:
            answers.append(call())

        try:
            self._retrying(attempt, size=0)
        except Exception as error:
            about = f"Stream {self._stream!r}, group {self._group!r}"
            raise self._server.refusal(error, about) from None
        return answers[0] if answers else None

    def _make_group(self, start: str) -> None:
        try:
            self._client.xgroup_create(self._stream, self._group, start, mkstream=True)
        except Exception as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _read(self, after: str, count: int, wait: float) -> list[Raw]:
        block = max(1, int(wait * 1000))  # 0 would be for ever

        def read() -> Any:
            try:
                return self._client.xreadgroup(
                    self._group, self._consumer, {self._stream: after}, count=count, block=block
                )
            except Exception as error:
                # An answer that was lost on the way had entries, which are ours now.
                self._own = BEGINNING
                if not str(error).startswith("NOGROUP"):
                    raise
                logger.warning(
                    "Stream %r has lost its group %r, so the server has lost what was in it; "
                    "it begins anew.",
                    self._stream,
                    self._group,
                )
                self._make_group("0")
                return []

        return _entries_of(self._call(read))

    def _claim(self, count: int) -> list[StreamEntry]:
        """What others have left, from where the last look ended."""
        while True:
            answer = self._call(self._claim_once(count))
            if answer is None:
                return []
            following, claimed, *gone = answer
            self._claim_from = _text(following)
            self._removed.add(sum(map(len, gone)), "they were removed before they were read")
            entries = self._readable(claimed)
            if entries or self._claim_from == BEGINNING:
                return entries

    def _claim_once(self, count: int) -> Callable[[], Any]:
        return lambda: self._client.xautoclaim(
            self._stream,
            self._group,
            self._consumer,
            min_idle_time=int(self._claim_after * 1000),
            start_id=self._claim_from,
            count=count,
        )

    def _readable(self, entries: Sequence[Raw]) -> list[StreamEntry]:
        """Without those of which only the number is left, because the stream was bounded."""
        gone = [StreamEntry(_text(key), None, None) for key, fields in entries if not fields]
        if gone:
            self._removed.add(len(gone), "they were removed before they were read")
            self.acknowledge(gone)
        return [_parse(_text(key), fields) for key, fields in entries if fields]

    def _check_removed(self) -> None:
        """Count what the stream's bound has removed before this group has read it.

        Servers before 7.0 do not tell.
        """
        removed, read = self._call(self._look) or (0, None)
        if read is None:
            return
        missed = max(0, removed - read)
        # The server's count of what was read stands still until the next read.
        known = self._missed[1] if self._missed[0] == read else 0
        self._missed = (read, max(missed, known))
        self._removed.add(max(0, missed - known), "the stream is longer than it may be")

    def _look(self) -> tuple[int, int | None]:
        stream = self._client.xinfo_stream(self._stream)
        groups = self._client.xinfo_groups(self._stream)
        removed = stream.get("entries-added", 0) - stream["length"]
        mine: Mapping[str, Any] = next(
            (group for group in groups if _text(group["name"]) == self._group), {}
        )
        read = mine.get("entries-read")
        if read is None and _text(mine.get("last-delivered-id")) == BEGINNING:
            read = 0  # the server does not count for a group that has read nothing yet
        return removed, read


def _entries_of(answer: Any) -> list[Raw]:
    """The entries of the one stream in an answer, which has another form in RESP3."""
    if not answer:
        return []
    if isinstance(answer, Mapping):
        (pages,) = answer.values()
        return [entry for page in pages for entry in page]
    ((_, entries),) = answer
    return list(entries)


def _parse(key: str, raw: Mapping[Any, Any]) -> StreamEntry:
    fields = {_text(name): value for name, value in raw.items()}
    origin = _text(fields["id"]) if "id" in fields else None
    try:
        time_ns = int(fields["time_ns"]) if "time_ns" in fields else None
        event = decode(fields["record"], time_ns=time_ns)
        if "rank" in fields:
            event.metadata.setdefault("rank", int(fields["rank"]))
        if "host" in fields:
            event.metadata.setdefault("host", _text(fields["host"]))
    except KeyError:
        return StreamEntry(key, origin, None, "it has no field 'record'")
    except ValueError as error:
        return StreamEntry(key, origin, None, str(error))
    return StreamEntry(key, origin, event)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
