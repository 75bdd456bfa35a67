"""Names and directories of a process that is one of several."""

from __future__ import annotations

from typing import Final

from handlers.records import Site
from telemetry.ranks import rank

RANK: Final = "{rank}"
"""What stands for the process's rank, as it is known when the handler is attached."""


def ranked(site: Site, text: str, between: str = "-") -> str:
    """A text with the rank for ``{rank}``; no two ranks of ``ranks="all"`` have the same one.

    Args:
        site: Where the sink is attached.
        text: What was given.
        between: What comes before the rank where ``{rank}`` does not say its place.

    Example:
        >>> from telemetry import ALL, Registry
        >>> ranked(Site("a", Registry(), (ALL,), "all"), "run")
        'run-rank0'
        >>> ranked(Site("a", Registry(), (ALL,), "zero"), "run-{rank}-a")
        'run-0-a'
    """
    number = str(rank() or 0)
    if RANK in text or site.ranks == "zero":
        return text.replace(RANK, number)
    return f"{text}{between}rank{number}"
