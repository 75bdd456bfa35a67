"""Values that a sink cannot keep, counted by the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handlers.losses import Losses, countable, is_announcement
from handlers.records import Site, TimedEvent
from telemetry import EventName


class Tally:
    """What was refused of some events, and for each reason an example.

    Attributes:
        counts: How many values, by reason.
        examples: The first of them, in words.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def note(self, policy: str, example: str = "", count: int = 1) -> None:
        """Count what was refused for one reason; "" is none."""
        if policy and count:
            self.counts[policy] = self.counts.get(policy, 0) + count
            self.examples.setdefault(policy, example)

    def note_of(self, event: EventName, policy: str, example: str = "") -> None:
        """Count what was refused of an event, unless that only announces losses."""
        if not is_announcement(event):
            self.note(policy, example)


class Refusals:
    """Counts and announces, as `Losses` does, what is refused for each of several reasons.

    Args:
        site: Whose.
        reasons: What the announcement says (``policy``), and the log in words.
    """

    def __init__(self, site: Site, reasons: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._losses = {policy: Losses(site, policy) for policy in reasons}

    def add(self, tally: Tally) -> None:
        """Count it, and announce what is due.

        Never called under a lock of the sink: who hears the announcement may be waiting for it.
        """
        for policy, count in tally.counts.items():
            example = tally.examples[policy]
            because = f"{self._reasons[policy]}{f', first {example!r}' if example else ''}"
            self._losses[policy].add(count, because)
        for losses in self._losses.values():
            losses.announce_if_due()

    def refuse(self, policy: str, batch: Sequence[TimedEvent]) -> None:
        """Count and announce events that come when none is taken any more."""
        self._losses[policy].add(countable(batch), self._reasons[policy])

    def announce_rest(self) -> None:
        """Announce what was not announced yet."""
        for losses in self._losses.values():
            losses.announce_rest()
