"""Where ``telemetry plot`` is to draw, as its options and the terminal say it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

PICTURE: Final = Path("metrics.png")


class Places(NamedTuple):
    """Where a chart goes.

    Attributes:
        out: A file, None for none.
        show: Whether to a window.
        terminal: Whether to standard output, as characters.
    """

    out: Path | None
    show: bool
    terminal: bool


def places_of(out: Path | None, show: bool, terminal: bool, *, shaped: bool) -> Places:
    """Where a chart goes: where it was asked for, or else to a picture.

    Without a word about it, a person in a terminal that has no display gets characters.

    Args:
        out: The file that was asked for.
        show: Whether a window was.
        terminal: Whether characters were.
        shaped: Whether a size or a resolution was, which only a picture or a window has.
    """
    asked = out is not None or show or terminal
    if not asked and not shaped and not _has_display():
        return Places(None, show=False, terminal=True)
    return Places(out if asked else PICTURE, show, terminal)


def _has_display() -> bool:
    """Whether a picture can be looked at here, or a program and not a person has asked for it."""
    if not sys.stdout.isatty() or sys.platform == "win32":
        return True
    if sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
