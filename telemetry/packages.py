"""Our sibling packages, whose plain names somebody else's file can hide."""

from __future__ import annotations

import importlib
from pathlib import Path

from telemetry.errors import ShadowedPackageError

_HOME = Path(__file__).resolve().parent.parent


def check_package(name: str) -> None:
    """Make sure that ``import name`` finds the package installed beside this one.

    Raises:
        ShadowedPackageError: It finds another file, and the message says which.
    """
    module = importlib.import_module(name)
    ours = _HOME / name / "__init__.py"
    found = Path(module.__file__).resolve() if module.__file__ else None
    if found != ours:
        raise ShadowedPackageError(
            f"'import {name}' finds {found or module}, which hides the package {ours} of "
            f"trainbus. Rename that file or folder, or start Python from another directory."
        )
