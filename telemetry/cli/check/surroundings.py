"""What a handler finds where it runs: who registered it, packages, environment variables."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, PackageNotFoundError, requires, version
from textwrap import wrap
from typing import Any, Final

WIDTH: Final = 80
DISTRIBUTION: Final = "trainbus"

# As docstrings here write them: ``WANDB_API_KEY``, ``DD_*``.
_VARIABLE: Final = re.compile(r"``([A-Z][A-Z0-9]*_[A-Z0-9_]*\*?)``")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+).*;.*extra == ['\"]([^'\"]+)['\"]")


def origin_of(entry: EntryPoint) -> str:
    """Who registered a handler."""
    owner = "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
    return f"{entry.name}, of {owner} ({entry.value})"


def packages_of(handler: str) -> str:
    """The packages that the extra of a handler's name brings, with their versions.

    Example:
        >>> packages_of("jsonl")
        'needs no other package'
    """
    matches = [_REQUIREMENT.match(line) for line in requires(DISTRIBUTION) or ()]
    names = [match[1] for match in matches if match and match[2] == handler]
    return ", ".join(f"{name} {_version(name)}" for name in names) or "needs no other package"


def environment_of(factory: Callable[..., Any]) -> list[str]:
    """Which of the environment variables that a factory's documentation names are set.

    Example:
        >>> def create(site): "Reads ``TRAINBUS_EXAMPLE_KEY``."
        >>> environment_of(create)
        ['environment, not set: TRAINBUS_EXAMPLE_KEY']
    """
    module = sys.modules.get(getattr(factory, "__module__", ""))
    texts = (inspect.getdoc(factory), inspect.getdoc(module))
    named = dict.fromkeys(name for text in texts if text for name in _VARIABLE.findall(text))
    found = {name: _variables(name) for name in named}
    present = ", ".join(one for names in found.values() for one in names)
    absent = ", ".join(name for name, names in found.items() if not names)
    lines = [f"environment, set: {present}"] if present else []
    lines += [f"environment, not set: {absent}"] if absent else []
    return [part for line in lines for part in wrap(line, WIDTH, subsequent_indent=" " * 4)]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _variables(name: str) -> list[str]:
    """Those of a name, which can end with ``*``, that are set."""
    if not name.endswith("*"):
        return [name] if os.environ.get(name) else []
    return sorted(key for key in os.environ if key.startswith(name.removesuffix("*")))
