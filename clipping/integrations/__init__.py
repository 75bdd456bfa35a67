"""Callbacks that clip inside the training loops of other frameworks.

``clipping.integrations.lightning``, ``.transformers`` and ``.keras`` each have a ``ClipCallback``
and import their framework when they are first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

_SUBMODULES = ("keras", "lightning", "transformers")


if TYPE_CHECKING:
    from clipping.integrations import keras as keras
    from clipping.integrations import lightning as lightning
    from clipping.integrations import transformers as transformers


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"clipping.integrations.{name}")
    raise AttributeError(f"module 'clipping.integrations' has no attribute {name!r}")
