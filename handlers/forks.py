"""What a forked child must do anew: locks, queues and threads of its parent are of no use to it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Holding(Protocol):
    """An object in the middle of something that must not be cut in two by a fork."""

    def before_fork(self) -> None:
        """Come to an end of it, or at least do not wait for long."""

    def after_fork_in_parent(self) -> None:
        """Go on."""


class Renewable(Protocol):
    """An object with state that a forked child cannot use as it is."""

    def after_fork(self) -> None:
        """Called in the child, which has one thread, before its first line of code."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()
_holding: weakref.WeakSet[Holding] = weakref.WeakSet()


def renew_in_children(renewable: Renewable) -> None:
    """Call its ``after_fork`` in every child, for as long as somebody else holds the object."""
    _renewables.add(renewable)


def hold_while_forking(holding: Holding) -> None:
    """Call its two methods around every fork, for as long as somebody else holds the object."""
    _holding.add(holding)


def _hold() -> None:
    for holding in tuple(_holding):
        holding.before_fork()


def _go_on() -> None:
    for holding in tuple(_holding):
        holding.after_fork_in_parent()


def _renew() -> None:
    for renewable in tuple(_renewables):
        renewable.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_renew)
