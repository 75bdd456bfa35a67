"""What matplotlib warns of while it draws a picture, in sentences of our own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

MOST_SHOWN: Final = 12
"""Characters that a sentence names."""
NO_ROOM: Final = "constrained_layout not applied"
TOO_SMALL: Final = (
    "The picture is too small for what it shows, and parts of it overlap. Make it larger, or draw "
    "less."
)

_GLYPH: Final = re.compile(r"Glyph (\d+) \(.*\) missing from font\(s\) (.+)\.")


def in_sentences(texts: Iterable[str]) -> list[str]:
    """The texts of warnings, each once, with one sentence for all that matplotlib repeats.

    Args:
        texts: What was warned of. Only what matplotlib says of its font (once for each character)
            and of its layout (once for each drawing) is changed.

    Example:
        >>> glyph = "Glyph {} ({}) missing from font(s) DejaVu Sans."
        >>> in_sentences(["a", glyph.format(25439, "x"), glyph.format(22833, "y"), "a"])
        ['a', 'The font DejaVu Sans has no 损失: the picture has boxes in their place.']
    """
    told = dict[str, None]()
    missing: dict[str, dict[str, None]] = defaultdict(dict)
    for text in texts:
        glyph = _GLYPH.fullmatch(text)
        if glyph:
            missing[glyph[2]][chr(int(glyph[1]))] = None
        else:
            told[TOO_SMALL if text.startswith(NO_ROOM) else text] = None
    return [*told, *(_without(font, "".join(chars)) for font, chars in missing.items())]


def _without(font: str, characters: str) -> str:
    more = len(characters) - MOST_SHOWN
    named = characters[:MOST_SHOWN] + (f" and {more} more characters" if more > 0 else "")
    return f"The font {font} has no {named}: the picture has boxes in their place."
