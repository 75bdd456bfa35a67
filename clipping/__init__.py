"""Adaptive gradient clipping that learns its threshold from the norms it sees.

`apply` clips by hand, `step` clips and steps, `clip_context` clips before every step of an
optimizer. ``clipping.torch``, ``clipping.jax``, ``clipping.tensorflow`` and ``clipping.numpy``
clip bare gradients, and ``clipping.integrations`` has callbacks for Lightning, Transformers and
Keras; each imports its framework when it is first used.

Example:
    >>> import clipping
    >>> import numpy as np
    >>> clipper = clipping.AutoClip(mode="percentile", history="window")
    >>> grads = {"w": np.array([3.0, 4.0])}
    >>> clipped = clipping.numpy.apply_grads(grads, {"w": np.zeros(2)}, clipper)
    >>> clipper.threshold_any()
    5.0
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from clipping.agc import AGC
from clipping.autoclip import AutoClip
from clipping.by_hand import apply, step
from clipping.clip_context import clip_context
from clipping.clipper import Clipper
from clipping.records import MetricsRecord, NumpyModel, NumpyOptimizer, ParamLike
from clipping.zscore import ZScoreClip

__all__ = [
    "AGC",
    "AutoClip",
    "Clipper",
    "MetricsRecord",
    "NumpyModel",
    "NumpyOptimizer",
    "ParamLike",
    "ZScoreClip",
    "apply",
    "clip_context",
    "step",
]

_SUBMODULES = ("integrations", "jax", "numpy", "tensorflow", "torch")


if TYPE_CHECKING:
    from clipping import integrations as integrations
    from clipping import jax as jax
    from clipping import numpy as numpy
    from clipping import tensorflow as tensorflow
    from clipping import torch as torch


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"clipping.{name}")
    raise AttributeError(f"module 'clipping' has no attribute {name!r}")
