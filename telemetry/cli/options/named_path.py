"""Paths on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class NamedPath(click.Path):
    """A path that is not empty: an empty one would be this directory, which nobody named.

    Example:
        >>> NamedPath().convert("runs/a.jsonl", None, None).name
        'a.jsonl'
    """

    def __init__(self, **kept: Any) -> None:
        super().__init__(path_type=Path, **kept)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or an error where there is none."""
        if value == "":
            self.fail("The path is empty. Is the variable set that it comes from?", param, ctx)
        return super().convert(value, param, ctx)
