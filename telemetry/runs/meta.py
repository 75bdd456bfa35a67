"""What the start of a run says about where and how it runs."""

from __future__ import annotations

import difflib
import getpass
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from telemetry.ranks import world_size
from telemetry.runs.checkout import git_commit
from telemetry.runs.command import shown_command

FRAMEWORKS: Final = (
    "torch",
    "jax",
    "tensorflow",
    "numpy",
    "accelerate",
    "flax",
    "keras",
    "lightning",
    "optax",
    "pytorch_lightning",
    "transformers",
)


def run_meta(without: Iterable[str] = ()) -> dict[str, Any]:
    """Where and how this process runs; what cannot be found out is left out.

    Args:
        without: Names of `RUN_META` to leave out.

    Returns:
        Of these, what is known: ``host``, ``user``, ``pid``, ``world_size`` (processes of the
        distributed run), ``command`` (the command line, what looks like a secret replaced by
        ``***``), ``python`` (its version), ``frameworks`` (versions of those that are imported),
        ``git_commit`` (of the checkout that the main script, or else the working directory, is in).

    Raises:
        TypeError: ``without`` is no list of strings.
        ValueError: It has a name that is none of these.

    Example:
        >>> meta = run_meta(without=["command", "git_commit"])
        >>> meta["world_size"], "command" in meta
        (1, False)
    """
    skipped = check_without(without)
    found = {name: _attempt(look) for name, look in _LOOKS.items() if name not in skipped}
    return {name: value for name, value in found.items() if value is not None}


def check_without(without: object, *more: str) -> frozenset[str]:
    """Return the names to leave out, or raise.

    Args:
        without: The names.
        *more: What is allowed besides those of `RUN_META`.

    Raises:
        TypeError: They are no list.
        ValueError: One is none of these.
    """
    allowed = (*RUN_META, *more)
    if isinstance(without, str) or not isinstance(without, Iterable):
        raise TypeError(
            f"without must be a list of names, got {without!r} ({type(without).__name__}). "
            "Write without=['user', 'command']."
        )
    names = list(without)
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            nearest = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"without has {name!r}, which the start of a run does not tell.{nearest} "
                f"Allowed: {', '.join(allowed)}."
            )
    return frozenset(names)


def _attempt(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except Exception:
        return None  # no name in a container, no git, no such directory: a run goes on without


def _command() -> str:
    return shown_command(sys.orig_argv)


def _frameworks() -> Mapping[str, str]:
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in FRAMEWORKS}
    return {name: str(version) for name, version in versions.items() if version is not None}


_LOOKS: Final[dict[str, Callable[[], Any]]] = {
    "host": platform.node,
    "user": getpass.getuser,
    "pid": os.getpid,
    "world_size": world_size,
    "command": _command,
    "python": platform.python_version,
    "frameworks": _frameworks,
    "git_commit": git_commit,
}
RUN_META: Final = tuple(_LOOKS)
"""What the start of a run tells, each of which can be left out."""
