"""A bound on how many values a tag can have: each makes a time series, which vendors charge for."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Final

OTHER: Final = "other"
MAX_KEYS: Final = 1000
"""Tags, whatever number of values each may have."""

logger = logging.getLogger("telemetry")


class TagLimit:
    """Lets so many values of each tag through, and makes every further one ``other``.

    That a tag has too many is logged once.

    Args:
        handler_id: Whose tags.
        most: How many values a tag may have: the first that come, for as long as the limit lives.

    Example:
        >>> import logging
        >>> logging.getLogger("telemetry").setLevel(logging.ERROR)
        >>> limit = TagLimit("datadog", 2)
        >>> [limit.admit(f"user:{name}") for name in ("ann", "bob", "ann", "cy")]
        ['user:ann', 'user:bob', 'user:ann', 'user:other']
    """

    def __init__(self, handler_id: Hashable, most: int) -> None:
        self._handler_id = handler_id
        self._most = most
        self._values: dict[str, set[str]] = {}
        self._said: set[str] = set()

    def admit(self, tag: str) -> str:
        """The tag, or what stands for it."""
        key, colon, value = tag.partition(":")
        key = key if colon else ""  # tags without a key are values of the tag that has no name
        known = self._values.get(key)
        if known is None:
            if len(self._values) >= MAX_KEYS:
                self._say("", f"{MAX_KEYS} different tags", "Name fewer in the definitions.")
                return OTHER
            known = self._values[key] = set()
        value = value if colon else tag
        if value in known:
            return tag
        if len(known) < self._most:
            known.add(value)
            return tag
        what = f"values of the tag {key!r}" if key else "tags without a key"
        advice = "Raise max_tag_values, or leave the tag out of the definitions."
        self._say(key, f"{self._most} {what}", advice)
        return f"{key}:{OTHER}" if key else OTHER

    def _say(self, key: str, limit: str, advice: str) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning(
                "Handler %r: more than %s; further ones are sent as %r. %s",
                self._handler_id,
                limit,
                OTHER,
                advice,
            )
