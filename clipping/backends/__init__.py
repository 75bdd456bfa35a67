"""Which framework a model is of: found by its parameters, imported when it is first needed."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, cast

from clipping.protocols import Backend

FRAMEWORKS: Final = ("torch", "numpy")
"""Modules of this package, named after the framework that they serve; NumPy's is asked last."""

_ALLOWED: Final = (
    "Allowed: a torch.nn.Module, or an object whose parameters() gives trainable torch tensors or "
    "objects with NumPy arrays .data and .grad."
)


def backend_of(model: Any) -> Backend:
    """The backend of a model. A framework that nobody has imported is not imported for it.

    Raises:
        TypeError: It has no ``parameters()``, or they are of no known framework.
        ValueError: It has none of them.
    """
    if isinstance(model, type) or not callable(getattr(model, "parameters", None)):
        raise TypeError(
            f"Cannot clip a model without parameters(), got {model!r} ({type(model).__name__}). "
            f"{_ALLOWED} For bare gradients: apply_grads of clipping.torch, clipping.jax, "
            "clipping.tensorflow or clipping.numpy. For Keras: clipping.integrations.keras."
        )
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise ValueError(
            f"Cannot clip a model that has no parameters, got {type(model).__name__}. {_ALLOWED}"
        )
    for framework in FRAMEWORKS:
        if framework in sys.modules:
            backend = cast("Backend", importlib.import_module(f"{__name__}.{framework}"))
            if backend.recognises(parameter):
                return backend
    raise TypeError(
        f"Cannot clip the parameters of {type(model).__name__}: the first is {parameter!r} "
        f"({type(parameter).__module__}.{type(parameter).__qualname__}). {_ALLOWED}"
    )
