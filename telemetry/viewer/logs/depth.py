"""How deep a text of JSON is nested."""

from __future__ import annotations

import re
from typing import Final

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(r"[\[\]{}]")


def depth_of(text: str) -> int:
    """Levels of lists and objects in some JSON, which may be too deep for any parser.

    Example:
        >>> depth_of('{"a": [1, {"b": "[[["}]}')
        3
    """
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
