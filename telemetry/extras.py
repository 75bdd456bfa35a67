"""Optional dependencies: imported on first use, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from telemetry.errors import MissingExtraError


def import_extra(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import what an extra of trainbus brings.

    Args:
        module: What to import.
        extra: The extra that brings it.
        feature: What needs it, as the user knows it.

    Raises:
        MissingExtraError: It cannot be imported; the cause is chained, so that a broken
            installation shows what is broken.

    Example:
        >>> import_extra("json", extra="demo", feature="telemetry demo").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        raise MissingExtraError(
            f"{feature} needs the module {module!r}, which cannot be imported. "
            f"Install it with: pip install 'trainbus[{extra}]'"
        ) from missing
