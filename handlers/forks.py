"""What a forked child must do anew: locks, queues and threads of its parent are of no use to it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object with state that a forked child cannot use as it is."""

    def after_fork(self) -> None:
        """Called in the child, which has one thread, before its first line of code."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(renewable: Renewable) -> None:
    """Call its ``after_fork`` in every child, for as long as somebody else holds the object."""
    _renewables.add(renewable)


def _renew() -> None:
    for renewable in tuple(_renewables):
        renewable.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
