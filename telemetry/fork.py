"""What a forked child renews, apart from the registry so that the hook keeps nothing alive.

The interpreter holds its fork hooks to the very end. One that could reach the registry would keep
every handler, and the globals of its module, from being finalized while the bus still works.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object with locks, threads or queues that a forked child cannot use as they are."""

    def _renew(self) -> None: ...


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_child(renewable: Renewable) -> None:
    """Make an object usable in every forked child, whatever another thread was doing with it."""
    _renewables.add(renewable)


def _renew_all() -> None:
    for renewable in tuple(_renewables):
        renewable._renew()  # noqa: SLF001 -- its hook, called from here only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
