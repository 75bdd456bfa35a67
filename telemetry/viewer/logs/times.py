"""Times of records: text in ISO 8601, or a number of seconds; one rule for both readers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from telemetry.values import check_time_ns, restore_time_ns
from telemetry.viewer.logs.engine import quoted

_TEXT: Final = (
    "[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
    "(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?)?"
)
"""What both parsers take, and take for the same: each knows forms that the other does not."""
_AS_WE_WRITE: Final = "____-__-__T__:__:__.______Z"


def time_of(value: object) -> int | None:
    """A time in nanoseconds since 1970, exact to the microsecond; None for what is none.

    Args:
        value: Text in ISO 8601, UTC where it says no zone, or seconds since 1970.

    Example:
        >>> time_of("2026-11-21 10:30:00,123"), time_of(1795257000.123), time_of("1795257000")
        (1795257000123000000, 1795257000123000000, None)
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            # To the microsecond: a float of seconds of this century has no room for more.
            return check_time_ns(round(value * 1e6) * 1000)
        if isinstance(value, str) and re.fullmatch(_TEXT, value):
            moment = datetime.fromisoformat(value)
            zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return check_time_ns(restore_time_ns(zoned.isoformat()))
    except (ValueError, OverflowError):  # as 30 February, or a year that has no room
        return None
    return None


def time_in(text: str, kind: str) -> str:
    """The same in SQL, as a timestamp; one outside of the years that have room is still one.

    Args:
        text: The value as text, in SQL.
        kind: Its type in JSON, in SQL; not asked for where there is no value.
    """
    return f"""CASE WHEN {text} LIKE '{_AS_WE_WRITE}' THEN try_cast({text} AS TIMESTAMP)
        WHEN {text} IS NULL THEN NULL
        WHEN {kind} <> 'VARCHAR'
            THEN make_timestamp(try_cast(try_cast({text} AS DOUBLE) * 1e6 AS BIGINT))
        WHEN regexp_full_match({text}, {quoted(_TEXT)})
            THEN try_cast(replace({text}, ',', '.') AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END"""
