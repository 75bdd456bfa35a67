"""What is given to the handler and to the client, checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Final

from handlers.secrets import HIDDEN, redact_urls

LONGEST_HOST: Final = 253
"""Characters of a machine's name (RFC 1035)."""
_LABEL: Final = re.compile(r"[\w-]{1,63}")


def check_rate(who: str, rate: object) -> None:
    """Refuse what is no probability.

    Raises:
        TypeError: It is no number.
        ValueError: It is not more than 0 and at most 1.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(
            f"{who}: sample_rate must be a number, got {rate!r} ({type(rate).__name__}). "
            "Allowed: more than 0, at most 1."
        )
    if not 0 < rate <= 1:
        raise ValueError(f"{who}: sample_rate is {rate!r}. Allowed: more than 0, at most 1.")


def checked_tags(who: str, given: Any) -> Iterable[Any]:
    """Several tags, whatever these are.

    Raises:
        TypeError: It is one string, a mapping, or nothing that has items.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        instead = ["env:production"]
        if isinstance(given, str):
            instead = [given]
        elif isinstance(given, Mapping):
            instead = [f"{key}:{value}" for key, value in given.items()]
        raise TypeError(
            f"{who}: tags must be a list of strings, got {given!r} ({type(given).__name__}). "
            f"Write tags={instead!r}."
        )
    return given


def is_host(given: str) -> bool:
    """Whether it can be the name or the address of a machine.

    Example:
        >>> is_host("agent.local"), is_host("::1"), is_host("localhost:8125"), is_host("my..host")
        (True, True, False, False)
    """
    try:
        ip_address(given)
    except ValueError:
        labels = given.removesuffix(".").split(".")
        return len(given) <= LONGEST_HOST and all(map(_LABEL.fullmatch, labels))
    return True


def shown(given: str) -> str:
    """What was given, as an error may show it: not if there may be a password in it.

    Example:
        >>> shown("my..host"), shown("me:password@host")
        ('my..host', '***')
    """
    return HIDDEN if "@" in given else redact_urls(given)
