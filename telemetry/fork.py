"""What a forked child renews, apart from the registry so that the hook keeps nothing alive.

The interpreter holds its fork hooks to the very end. One that could reach the registry would keep
every handler, and the globals of its module, from being finalized while the bus still works.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telemetry.registry import Registry

_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def renew_in_child(registry: Registry) -> None:
    """Make a registry usable in every forked child, whatever another thread was doing with it."""
    _registries.add(registry)


def _renew_all() -> None:
    for registry in tuple(_registries):
        registry._renew()  # noqa: SLF001 -- the registry's hook, called from here only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
