"""Statements to an agent: Datadog's own, or any StatsD server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from handlers.datadog_statements import Statement, Told
from handlers.datagrams import Address, Datagrams
from handlers.losses import Losses
from handlers.retrying import Retrying


class Lines(Protocol):
    """A dialect."""

    def lines(self, statement: Statement) -> tuple[list[bytes], int]:
        """The lines of a statement, none if sampling leaves it out; how many are too long."""


class Agent:
    """Sends statements as soon as they come.

    Args:
        dialect: Writes them as lines.
        address: Where the agent listens.
        retrying: Repeats what fails.
        losses: Counts the events that are given up.
    """

    def __init__(
        self, dialect: Lines, address: Address, retrying: Retrying, losses: Losses
    ) -> None:
        self._dialect = dialect
        self._datagrams = Datagrams(address, retrying)
        self._losses = losses

    def send(self, events: Sequence[Told]) -> int:
        """Send them; how many statements are too long for a datagram."""
        written = [
            (self._dialect.lines(statement), index)
            for index, told in enumerate(events)
            for statement in told.statements
        ]
        each_line = ((line, index) for (lines, _), index in written for line in lines)
        lost = self._datagrams.send(each_line)
        self._losses.note(sum(events[index].size for index in lost), "no connection")
        return sum(too_long for (_, too_long), _ in written)

    def kept(self) -> int:
        """Nothing waits."""
        return 0

    def idle(self) -> bool:
        """Nothing waits."""
        return False

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the socket; a late statement opens it again."""
        self._datagrams.close()
