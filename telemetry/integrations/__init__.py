"""Callbacks that report the training loops of other frameworks.

``telemetry.integrations.lightning``, ``.transformers`` and ``.keras`` each have a
``TelemetryCallback``, ``.accelerate`` has a ``TelemetryTracker``. Each imports its framework when
it is first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

_SUBMODULES = ("accelerate", "keras", "lightning", "transformers")


if TYPE_CHECKING:
    from telemetry.integrations import accelerate as accelerate
    from telemetry.integrations import keras as keras
    from telemetry.integrations import lightning as lightning
    from telemetry.integrations import transformers as transformers


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"telemetry.integrations.{name}")
    raise AttributeError(f"module 'telemetry.integrations' has no attribute {name!r}")
