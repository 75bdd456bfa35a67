"""A copy of what an emitter hands over, for a thread that reads it later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from telemetry.values import jsonable


def copy_of(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What a mapping has now; of one that cannot be read, what it is.

    Raises:
        Exception: It is no mapping, which is the emitter's mistake: the bus tells it.

    Example:
        >>> import os
        >>> copy_of(os.environ) == os.environ, copy_of({"loss": 2.5})
        (True, {'loss': 2.5})
    """
    try:
        return dict(mapping)
    except Exception:
        if not isinstance(mapping, Mapping):
            raise
        return {"unreadable": jsonable(mapping)}
