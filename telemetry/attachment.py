"""What `attach` gives back."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, Self

from telemetry.records import EventName


class Lease(NamedTuple):
    """What a registry lets an attachment do with the one handler it stands for."""

    detach: Callable[[], bool]
    is_attached: Callable[[], bool]
    fail: Callable[[EventName, Exception], None]


class Attachment:
    """A handler as it was attached; leaving it as a context manager detaches it.

    It stands for that one handler for ever: after the id was detached and given to somebody else,
    it does nothing.

    Example:
        >>> import telemetry
        >>> with telemetry.attach("printer", ("training", "step"), lambda e, m, md, c: print(m)):
        ...     telemetry.execute(("training", "step"), {"loss": 2.5})
        {'loss': 2.5}
        >>> telemetry.list_handlers()
        []
    """

    def __init__(self, handler_id: Hashable, lease: Lease) -> None:
        self._id = handler_id
        self._lease = lease

    @property
    def id(self) -> Hashable:
        """The id given to `attach`."""
        return self._id

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return self._lease.is_attached()

    def detach(self) -> None:
        """Detach it from all its events. Does nothing if that has happened already."""
        self._lease.detach()

    def fail(self, event: EventName, error: Exception) -> None:
        """Treat ``error`` as if the handler had raised it when it was called for ``event``.

        For handlers that work in the background and fail after they returned: what the registry
        does for a handler that raises (detach it unless it is kept, announce, log) is done now.
        """
        self._lease.fail(event, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} {'active' if self.active else 'detached'}>"
