"""Directories as they are given to sinks."""

from __future__ import annotations

import os
from pathlib import Path

from handlers.records import Site


def directory_of(site: Site, option: str, given: object) -> Path:
    """A directory of this machine; ``~`` is the user's home.

    It is absolute, because a forked child or a late event opens it wherever the program is by then.

    Args:
        site: Where the sink is attached.
        option: What the handler calls it.
        given: What was given.

    Raises:
        TypeError: It is no path.
        ValueError: It is empty, or is none of this machine.
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str):
        raise TypeError(
            f"Handler {site.handler_id!r}: {option} must be a string or an os.PathLike, got "
            f"{given!r} ({type(given).__name__}). Write {option}='runs/a'."
        )
    if not text or "\0" in text or "://" in text or not _can_be_encoded(text):
        raise ValueError(
            f"Handler {site.handler_id!r}: {option} must be a directory of this machine, got "
            f"{text!r}. Write {option}='runs/a'."
        )
    return Path(os.path.expanduser(text)).absolute()  # noqa: PTH111 -- Path's raises for a "~name" without a home


def _can_be_encoded(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True
