"""NumPy: gradients in arrays, which every norm of is accumulated in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipping import units
from clipping.clipper import Clipper
from clipping.groups import Groups, Leaf, arrange
from clipping.host import HOST, HostOps
from clipping.records import Array, Decision, Measured, NumpyModel, NumpyOptimizer, ParamLike

Store = Callable[[int, NDArray[Any]], None]


class NumpyGradients:
    """Gradients in NumPy arrays.

    Args:
        arrays: Floating-point or complex, of any shape; None for a parameter without a gradient.
        weights: The parameters, of the same shapes.
        groups: How they are grouped.
        store: Called with the index of a gradient and what it has become.
    """

    backend: Final = "numpy"
    ops: HostOps = HOST

    def __init__(
        self,
        arrays: Sequence[NDArray[Any] | None],
        weights: Sequence[Any],
        groups: Groups,
        store: Store,
    ) -> None:
        self.groups = groups
        self._arrays = arrays
        self._weights = weights
        self._store = store

    def present(self) -> Array:
        """Which rows have a gradient; None if all."""
        return self.groups.present(np.array([array is not None for array in self._arrays]))

    def measure(self, *, weights: bool) -> Measured:
        """The norms of every row."""
        return Measured(
            self._norms(self._arrays),
            self._norms(self._weights) if weights else None,
            self.present(),
            self.groups.grouped,
        )

    def rescale(self, decision: Decision) -> None:
        """Store new arrays for what is scaled or zeroed."""
        sizes = np.diff(np.r_[self.groups.first, self.groups.rows])
        for index, array in enumerate(self._arrays):
            first = self.groups.first[index]
            rows = slice(first, first + (sizes[index] if self.groups.unitwise else 1))
            scale, zeroed = decision.scale[rows], decision.zeroed[rows]
            if array is None or (scale == 1).all():
                continue
            if self.groups.unitwise:
                shape = _broadcast(array.shape)
                scale, zeroed = scale.reshape(shape), zeroed.reshape(shape)
            self._store(index, _scaled(array, scale, zeroed))

    def _norms(self, arrays: Sequence[Any]) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # the norm says it: inf or NaN
            if self.groups.unitwise:
                every = zip(arrays, self._weights, strict=True)
                return np.concatenate([_unit_norms(a, np.shape(weight)) for a, weight in every])
            return self.groups.combine(HOST, np.array([_norm(array) for array in arrays]))


def leaf(weight: Any, layer: str | None) -> Leaf:
    """What `arrange` wants to know of a parameter.

    Args:
        weight: Its array.
        layer: The name of what owns it; None if it is not known.
    """
    shape = np.shape(weight)
    return Leaf(shape, layer, units.count(shape, units.last_axis(shape)))


def recognises(parameter: object) -> bool:
    """Whether a parameter is an object with a NumPy array ``.data``."""
    return isinstance(getattr(parameter, "data", None), np.ndarray)


def gradients_of(model: NumpyModel, clipper: Clipper) -> NumpyGradients:
    """The gradients of a model, to be scaled in place; a read-only one is replaced.

    Raises:
        TypeError: A gradient is no array of floating-point or complex numbers.
        ValueError: There is none, one has another shape than its parameter, or the clipper's scope
            needs names of layers.
    """
    held = _distinct(list(model.parameters()))
    present = [p for p in held if p.grad is not None]
    if not present:
        raise ValueError(
            f"Cannot clip a model without gradients, got {type(model).__name__} whose parameters "
            "all have .grad None. Set the gradients first."
        )
    for parameter in present:
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

    weights = [p.data for p in held]
    groups = arrange(clipper, [leaf(weight, None) for weight in weights])
    return NumpyGradients([p.grad for p in held], weights, groups, store)


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


def _norm(array: NDArray[Any] | None) -> Any:
    return 0.0 if array is None else np.linalg.norm(_wide(array).ravel())


def _unit_norms(array: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[Any]:
    within = units.last_axis(shape)
    if array is None:
        return np.zeros(units.count(shape, within))
    return np.asarray(np.sqrt(np.sum(np.abs(_wide(array)) ** 2, axis=within))).ravel()


def _broadcast(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which one number for each unit goes with a parameter."""
    within = units.last_axis(shape)
    return tuple(1 if axis in within else length for axis, length in enumerate(shape))


def _wide(array: Any) -> NDArray[Any]:
    wide: NDArray[Any] = np.asarray(array)
    return wide.astype(np.result_type(wide.dtype, np.float64), copy=False)


def _scaled(array: NDArray[Any], scale: Array, zeroed: Array) -> Array:
    # In half precision the factor itself would be rounded to 11 bits, or to 0.
    wide = np.result_type(array.dtype, np.float32)
    factor = np.asarray(scale).astype(np.finfo(wide).dtype).reshape(np.shape(scale) or ())
    if factor.size == 1:
        factor = factor.reshape(())
    with np.errstate(invalid="ignore"):  # infinity times 0, which is replaced
        scaled = np.multiply(array, factor, dtype=wide)
    return np.where(np.reshape(zeroed, np.shape(factor)), 0, scaled).astype(array.dtype)
