"""Handlers by name: the entry points of the installed distributions."""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    entry_points,
    metadata,
)
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from handlers.records import Factory
from telemetry import ShadowedPackageError

GROUP: Final = "trainbus.handlers"
DISTRIBUTION: Final = "trainbus"


def find_factory(name: str) -> Factory:
    """The factory that is registered under a name.

    Raises:
        TypeError: The name is no string, or what is registered cannot be called.
        ValueError: Nobody registered it, or several distributions did.
        ImportError: Its module cannot be imported, or what is registered does not exist.
        ShadowedPackageError: Another file of the same name hides its module.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"Handler name must be a string, got {name!r} ({type(name).__name__}). "
            "For a function of your own, use telemetry.attach()."
        )
    # By value, because an editable install and a wheel of one distribution name it twice.
    candidates = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if not candidates:
        raise ValueError(_unknown(name))
    if len(candidates) > 1:
        owners = ", ".join(f"{_owner(entry)} ({value})" for value, entry in candidates.items())
        raise ValueError(
            f"Handler name {name!r} is registered by several distributions: {owners}. "
            "Uninstall all but one of them."
        )
    (entry,) = candidates.values()
    return _load(entry)


def known_names() -> list[str]:
    """The names under which handlers are registered, sorted."""
    return sorted(entry_points(group=GROUP).names)


def suggestion(word: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` for the known word that is nearest, empty if none is near."""
    near = get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _unknown(name: str) -> str:
    known = known_names()
    if not known:
        return (
            f"Unknown handler {name!r}: no handlers are registered, because {DISTRIBUTION} is not "
            f"installed in {sys.prefix}. Install it with: pip install {DISTRIBUTION}"
        )
    message = f"Unknown handler {name!r}. Known handlers: {', '.join(known)}."
    if name in _extras():
        return (
            f"{message} This version has none for the extra {name!r}; one that has installs it "
            f"with: pip install -U '{DISTRIBUTION}[{name}]'"
        )
    return message + suggestion(name, known)


def _extras() -> list[str]:
    try:
        return metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []


def _load(entry: EntryPoint) -> Factory:
    try:
        factory: Any = entry.load()
    except (AttributeError, ModuleNotFoundError) as missing:
        if _is_missing_itself(entry, missing):
            raise _not_there(entry) from missing
        raise
    if not callable(factory):
        raise TypeError(
            f"Handler {entry.name!r} of the distribution {_owner(entry)} is {entry.value}, which "
            f"is {factory!r}. It must be a function create(site, *, option, ...)."
        )
    checked: Factory = factory
    return checked


def _is_missing_itself(entry: EntryPoint, missing: Exception) -> bool:
    """Whether it is the entry's own module that is missing, and not something that imports."""
    if isinstance(missing, ModuleNotFoundError):
        return missing.name is not None and f"{entry.module}.".startswith(f"{missing.name}.")
    module = sys.modules.get(entry.module)
    return module is not None and not hasattr(module, entry.attr.partition(".")[0])


def _not_there(entry: EntryPoint) -> ImportError:
    top = entry.module.partition(".")[0]
    found = sys.modules.get(entry.module) or sys.modules.get(top)
    if found is not None and entry.dist is not None and not _is_part_of(entry.dist, found):
        return ShadowedPackageError(
            f"Handler {entry.name!r} is {entry.value} of the distribution {_owner(entry)}, "
            f"but it is not in what was imported: {found!r}. A file or folder of that "
            "name hides it: rename that, or start Python from another directory."
        )
    return ImportError(
        f"Handler {entry.name!r} cannot be loaded: distribution {_owner(entry)!r} registers "
        f"{entry.value}, which does not exist "
        f"({f'found {found!r}' if found is not None else f'no module named {top!r}'}). "
        f"Update it: pip install -U {_owner(entry)}"
    )


def _is_part_of(distribution: Distribution, module: ModuleType) -> bool:
    """Whether a module lies where a distribution was installed."""
    homes = [Path(str(distribution.locate_file(""))), *_editable_home(distribution)]
    places = [module.__file__] if module.__file__ else list(getattr(module, "__path__", ()))
    return any(
        Path(place).resolve().is_relative_to(home.resolve()) for place in places for home in homes
    )


def _editable_home(distribution: Distribution) -> list[Path]:
    """The project folder of an editable install (PEP 610), whose modules lie outside of it."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return []
    return [Path(url2pathname(urlsplit(origin["url"]).path))]


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"
