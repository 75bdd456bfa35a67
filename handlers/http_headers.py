"""Headers of HTTP that a user gives: checked before anything is sent with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from handlers.records import Site
from handlers.secrets import HIDDEN

EXAMPLE: Final = 'Write headers={"Authorization": "Bearer ..."}.'

_NAME: Final = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""They say how a request is sent, which is for who sends it."""


def check_headers(site: Site, headers: object) -> dict[str, str]:
    """The headers as they were given, if they can be sent.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-5

    Args:
        site: Whose.
        headers: What was given; None is none.

    Raises:
        TypeError: They are no mapping of strings to strings.
        ValueError: A name or a value has characters that no header may have, or the header is one
            that says how the request is sent. No value is shown.
    """
    if headers is None:
        return {}
    about = f"Handler {site.handler_id!r}"
    if not isinstance(headers, Mapping):
        raise TypeError(
            f"{about}: headers must map names to strings, got a {type(headers).__name__}. {EXAMPLE}"
        )
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(
                f"{about}: header {name!r} must be a string, and have one, got a "
                f"{type(value).__name__}. {EXAMPLE}"
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{about}: header {name!r} has a name that no header may have. Allowed: letters, "
                f"digits and !#$%&'*+-.^_`|~. {EXAMPLE}"
            )
        if name.lower() in _OWN:
            raise ValueError(
                f"{about}: header {name!r} says how a request is sent, which the handler decides. "
                "Leave it out."
            )
        if not (value.isprintable() and value.isascii() and value == value.strip()):
            raise ValueError(
                f"{about}: header {name!r}: {HIDDEN} has characters that no header may have. "
                f"{EXAMPLE}"
            )
    return dict(headers)
