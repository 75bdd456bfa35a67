"""NumPy: gradients in arrays, which every norm of is accumulated in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipping.host import HOST, HostOps
from clipping.records import GLOBAL, Array, Decision, Key, NumpyModel, NumpyOptimizer, ParamLike

Store = Callable[[int, NDArray[Any]], None]


class NumpyGradients:
    """Gradients in NumPy arrays.

    Args:
        arrays: Floating-point or complex, of any shape.
        store: Called with the index of a gradient and what it has become.
    """

    backend: Final = "numpy"
    ops: HostOps = HOST
    keys: Sequence[Key] = GLOBAL

    def __init__(self, arrays: Sequence[NDArray[Any]], store: Store) -> None:
        self._arrays = arrays
        self._store = store

    def norms(self) -> Array:
        """The norm of all of them."""
        with np.errstate(over="ignore", invalid="ignore"):  # the norm says it: inf or NaN
            return np.linalg.norm([_norm(array) for array in self._arrays], axis=0, keepdims=True)

    def rescale(self, decision: Decision) -> None:
        """Store new arrays for what is scaled or zeroed."""
        (scale,), (zeroed,) = decision.scale.tolist(), decision.zeroed.tolist()
        if scale == 1:
            return
        new = [np.zeros_like(a) if zeroed else _scaled(a, scale) for a in self._arrays]
        for index, array in enumerate(new):
            self._store(index, array)


def recognises(parameter: object) -> bool:
    """Whether a parameter is an object with a NumPy array ``.data``."""
    return isinstance(getattr(parameter, "data", None), np.ndarray)


def gradients_of(model: NumpyModel) -> NumpyGradients:
    """The gradients of a model, to be scaled in place; a read-only one is replaced.

    Raises:
        TypeError: A gradient is no array of floating-point or complex numbers.
        ValueError: There is none, or one has another shape than its parameter.
    """
    held = _distinct([p for p in model.parameters() if p.grad is not None])
    if not held:
        raise ValueError(
            f"Cannot clip a model without gradients, got {type(model).__name__} whose parameters "
            "all have .grad None. Set the gradients first."
        )
    for parameter in held:
        check_array(parameter.grad, "A parameter's .grad")
        if parameter.grad.shape != np.shape(parameter.data):
            raise ValueError(
                f"A parameter's .grad has shape {parameter.grad.shape}, its .data "
                f"{np.shape(parameter.data)}. They must be equal; the gradients are untouched."
            )

    def store(index: int, array: NDArray[Any]) -> None:
        if held[index].grad.flags.writeable:
            held[index].grad[...] = array
        else:
            held[index].grad = array

    return NumpyGradients([parameter.grad for parameter in held], store)


def check_optimizer(optimizer: object) -> None:
    """Raise TypeError for what has no ``step``."""
    if not callable(getattr(optimizer, "step", None)):
        raise TypeError(
            f"optimizer must have a step() method, got {optimizer!r} ({type(optimizer).__name__}). "
            "The order is clip_context(model, optimizer, clipper)."
        )


def before_step(optimizer: NumpyOptimizer, act: Callable[[], None]) -> Callable[[], None]:
    """Wrap ``optimizer.step`` on the instance; returns what unwraps it.

    Raises:
        TypeError: It takes no attributes.
    """
    original = optimizer.step
    had_own = "step" in getattr(optimizer, "__dict__", {})
    active = True

    def step(*args: Any, **kwargs: Any) -> Any:
        if active:
            act()
        return original(*args, **kwargs)

    def undo() -> None:
        nonlocal active
        active = False
        if getattr(optimizer, "step", None) is not step:
            return  # wrapped once more by somebody else, who still calls this one
        if had_own:
            optimizer.step = original  # type: ignore[method-assign] # what this function is for
        else:
            del optimizer.step

    try:
        optimizer.step = step  # type: ignore[method-assign] # what this function is for
    except AttributeError as refused:
        raise TypeError(
            f"The step method of {type(optimizer).__name__} cannot be wrapped: {refused}. "
            "Call clipping.step(model, optimizer, clipper) instead of optimizer.step()."
        ) from refused
    return undo


def check_array(gradient: object, what: str) -> None:
    """Raise TypeError for what is no array of floating-point or complex numbers."""
    if not isinstance(gradient, np.ndarray | np.generic) or not np.issubdtype(
        gradient.dtype, np.inexact
    ):
        kind = getattr(gradient, "dtype", type(gradient).__name__)
        raise TypeError(
            f"{what} must be a NumPy array of floating-point or complex numbers, got {gradient!r} "
            f"({kind}). The gradients are untouched."
        )


def _distinct(parameters: Sequence[ParamLike]) -> list[ParamLike]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def _norm(array: NDArray[Any]) -> Any:
    return np.linalg.norm(array.astype(np.result_type(array.dtype, np.float64), copy=False).ravel())


def _scaled(array: NDArray[Any], scale: float) -> Array:
    # In half precision the factor itself would be rounded to 11 bits, or to 0.
    wide = np.result_type(array.dtype, np.float32)
    return np.asarray(np.multiply(array, scale, dtype=wide)).astype(array.dtype)
