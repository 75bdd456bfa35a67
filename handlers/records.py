"""Types that every handler shares: a leaf module without imports of its own package."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from telemetry import EventName, Pattern, Registry

Ranks: TypeAlias = Literal["zero", "all"]
"""On which ranks of a distributed run a handler is built."""

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]
"""What becomes of an event when the queue of a background worker is full."""

Delivery: TypeAlias = Literal["direct", "eager", "ordered", "background"]
"""In which thread a sink is called, said by its attribute ``delivery``; the default is "ordered".

- ``"direct"``: always the emitter's, with the values as they are;
- ``"eager"``: the emitter's, until the sink itself gives an event to its ``defer``, because it has
  a value that is still on a device: then it is called with numbers, on a worker;
- ``"ordered"``: the emitter's, but a worker's for an event with a value that is still on a device,
  and for what comes while the worker has something left;
- ``"background"``: always a worker's.
"""

Defer: TypeAlias = Callable[[EventName, Mapping[str, Any], Mapping[str, Any]], None]


class Count(Protocol):
    """How many events a handler has lost, for one reason; see `handlers.Losses`."""

    policy: str
    total: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where a sink is being attached: the first argument of every factory.

    Attributes:
        handler_id: The id it gets.
        registry: The bus that it hears, on which it announces what it lost.
        events: The patterns it hears.
        ranks: Whether it is built on rank 0 only or on all.
        lost: What counts the handler's losses; `handlers.Losses` adds itself.
    """

    handler_id: Hashable
    registry: Registry
    events: tuple[Pattern, ...]
    ranks: Ranks
    lost: list[Count] = field(default_factory=list, compare=False, repr=False)


class TimedEvent(NamedTuple):
    """An event with the moment at which it was emitted, in nanoseconds since 1970 (UTC)."""

    time_ns: int
    event: EventName
    measurements: dict[str, Any]
    metadata: dict[str, Any]


class Sink(Protocol):
    """What a factory makes: a callable that takes each event.

    Unless its ``delivery`` is "background", it is called from several threads at once. An event
    that was under way while the sink was being closed can come after that.
    """

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
        /,
    ) -> object:
        """Take one event; the mappings are read-only."""


@runtime_checkable
class Eager(Protocol):
    """A sink that finds out itself which events it would have to wait for.

    It calls ``defer``, which `attach` sets, for these, and its ``deliver`` is then called on the
    worker, with numbers. That costs nothing for the events that it can take at once.
    """

    defer: Defer

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
        /,
    ) -> object:
        """Take one event in the emitter's thread, or defer it."""

    def deliver(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
        /,
    ) -> object:
        """Take one event on the worker."""


@runtime_checkable
class Batching(Protocol):
    """A sink that would rather have several events at once, on its worker.

    `__call__` is still there for events that the emitter's thread delivers.
    """

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
        /,
    ) -> object:
        """Take one event."""

    def deliver_many(self, batch: Sequence[TimedEvent], /) -> object:
        """Take what came, the oldest first, with numbers where tensors were emitted."""


@runtime_checkable
class Selective(Protocol):
    """A sink to which events of some names mean nothing: they do not take room in its queue."""

    def hears(self, event: EventName, /) -> bool:
        """Whether an event of this name can matter; asked in any thread, once for each name."""


@runtime_checkable
class Idling(Protocol):
    """A sink that has something to do on its worker when nothing comes for a while."""

    idle_after: float
    """Seconds without an event."""

    def idle(self) -> object:
        """Called once after each delivery, and again for as long as it returns True."""


@runtime_checkable
class Keeping(Protocol):
    """A sink that keeps what it was given by earlier deliveries, to send it with what comes."""

    def kept(self) -> int:
        """How many events that is; asked in another thread, when these are given up.

        The worker's owner counts them then, and the sink does not: see `handlers.given_up`.
        """


@runtime_checkable
class Flushable(Protocol):
    """A sink that keeps events back."""

    def flush(self) -> object:
        """Let go of what was kept back.

        False says that some of it cannot be delivered now. On a worker it is asked again then, for
        as long as somebody waits for the answer; what is emitted meanwhile is delivered.
        """


@runtime_checkable
class Closeable(Protocol):
    """A sink that has something to end."""

    def close(self) -> object:
        """Called once, after the last event of a handler that was detached."""


@runtime_checkable
class Describing(Protocol):
    """A sink that can tell where to look for what it has delivered."""

    def where_to_look(self) -> str:
        """A file, an address, the name of a metric; on one line, and without secrets."""


@runtime_checkable
class Checkable(Protocol):
    """A sink that sends nothing for a training step, and tells for what it does."""

    def check_event(self) -> tuple[EventName, Mapping[str, Any], Mapping[str, Any]]:
        """Name, measurements and metadata of an event that it sends."""


@runtime_checkable
class Silenceable(Protocol):
    """A sink that can be switched off."""

    def why_silent(self) -> str:
        """Why it sends nothing, empty if it does."""


class Factory(Protocol):
    """What an entry point of the group ``trainbus.handlers`` names."""

    def __call__(self, site: Site, /, **options: Any) -> Sink:
        """Check the options, import the vendor's package, and make the sink."""
