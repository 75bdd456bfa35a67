"""Which events and runs a rule asks for, by their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from telemetry.values import on_device, to_python

Needs: TypeAlias = tuple[tuple[str, Any], ...]

_COMPARABLE: Final = (str, int, float, type(None))


def fits(needs: Needs, metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of an event have what a rule asks for.

    Example:
        >>> fits((("split", "val"),), {"split": "val"}), fits((("split", "val"),), {})
        (True, False)
    """
    for key, wanted in needs:
        found = metadata.get(key)
        if found is not wanted and not is_equal(found, wanted):
            return False
    return True


def is_another(needs: Needs, metadata: Mapping[str, Any]) -> bool:
    """Whether a run is one of which a rule wants to hear nothing: what it says differs.

    Example:
        >>> is_another((("run_id", "a"),), {"run_id": "b"}), is_another((("split", "val"),), {})
        (True, False)
    """
    return any(key in metadata and not is_equal(metadata[key], wanted) for key, wanted in needs)


def is_equal(found: object, wanted: object) -> bool:
    """Whether metadata are what is asked for; arrays, and what is on a device, are nothing equal.

    Example:
        >>> is_equal(2, 2), is_equal([2], 2)
        (True, False)
    """
    if not isinstance(found, _COMPARABLE):
        if on_device(found):
            return False  # reading it would wait for the device
        found = to_python(found)  # a number of NumPy, for one
    return isinstance(found, _COMPARABLE) and found == wanted
