"""Objects in JSON, as logs of others have them too."""

from __future__ import annotations

import json
from typing import Any


def object_in(text: str | None) -> dict[str, Any]:
    """What a JSON object says; nothing where the text is none.

    A bare NaN is taken, which is no JSON, and which Python writes.

    Example:
        >>> object_in('{"norm": NaN}'), object_in('["a"]'), object_in(None)
        ({'norm': nan}, {}, {})
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
