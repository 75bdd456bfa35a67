"""Seconds on a command line."""

from __future__ import annotations

from math import isnan
from typing import Any, Final

import click

LONGEST: Final = 366 * 24 * 3600.0
"""A year: not all that waits can wait for much longer than that."""


class Seconds(click.FloatRange):
    """A number of seconds that can be waited for.

    Args:
        above_zero: Whether 0 is refused.

    Example:
        >>> Seconds().convert("0.5", None, None)
        0.5
    """

    name = "seconds"

    def __init__(self, *, above_zero: bool = False) -> None:
        super().__init__(min=0, max=LONGEST, min_open=above_zero)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or an error that says what is allowed."""
        seconds = float(super().convert(value, param, ctx))
        if isnan(seconds):  # it is neither below nor above anything
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds
