"""What has to be installed for a page to be served."""

from __future__ import annotations

import importlib.util
from typing import Final

from telemetry.extras import import_extra

NEEDED: Final = ("duckdb", "numpy", "orjson", "plotly", "starlette", "uvicorn")


def check_installed() -> None:
    """Find out whether all of the extra is there, without importing what is.

    Raises:
        MissingExtraError: Something is missing.
    """
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            import_extra(module, extra="viewer", feature="telemetry view")
