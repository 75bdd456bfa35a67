"""How deep a record may be nested: what others wrote could be too deep for this stack."""

from __future__ import annotations

from typing import Any, Final

DEEPEST: Final = 100
"""Levels of lists and objects; what the handler ``jsonl`` writes has a third of that."""


def is_too_deep(value: object, levels: int = DEEPEST) -> bool:
    """Whether something that was JSON is nested deeper.

    Example:
        >>> is_too_deep({"a": [[]]}, 3), is_too_deep({"a": [[]]}, 2)
        (False, True)
    """
    if type(value) is dict:
        inner: Any = value.values()
    elif type(value) is list:
        inner = value
    else:
        return False
    return levels == 0 or any(
        is_too_deep(item, levels - 1) for item in inner if type(item) in (dict, list)
    )
