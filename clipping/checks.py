"""Checks of what a caller hands over."""

from __future__ import annotations

from clipping.clipper import Clipper


def check_clipper(clipper: object) -> None:
    """Raise TypeError for what is no clipper."""
    if not isinstance(clipper, Clipper):
        hint = ""
        if isinstance(clipper, type) and issubclass(clipper, Clipper):
            hint = f" That is the class; write clipping.{clipper.__name__}()."
        raise TypeError(
            f"clipper must be a clipper, such as clipping.AutoClip(), got {clipper!r} "
            f"({type(clipper).__name__}).{hint}"
        )
