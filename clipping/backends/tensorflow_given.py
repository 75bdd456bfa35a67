"""What a caller hands over: the variables of a model, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from clipping import units
from clipping.backends.tensorflow_layers import layers_of, path_of
from clipping.clipper import Clipper
from clipping.groups import Groups, Leaf, arrange
from clipping.tree import leaves

Gradient: TypeAlias = Any
"""A dense tensor, or `tf.IndexedSlices`."""

Shape: TypeAlias = tuple[int, ...]

UNTOUCHED = "Gradients and clipper are untouched."


class Layout(NamedTuple):
    """Variables and how they are grouped.

    Attributes:
        variables: Each once.
        shapes: Of each.
        groups: What belongs together.
        on_cpu: Whether all of them are on a CPU.
    """

    variables: tuple[Any, ...]
    shapes: tuple[Shape, ...]
    groups: Groups
    on_cpu: bool


def variables_of(model: Any) -> Any:
    """The structure of variables that a model has, or is.

    Raises:
        TypeError: Something in it is no variable.
        ValueError: There is none, or one is there twice.
    """
    structure = getattr(model, "trainable_variables", model)
    variables = tf.nest.flatten(structure)
    strange = [v for v in variables if not _is_variable(v)]
    if strange:
        raise TypeError(
            f"model must have trainable_variables, or be a list of variables, got "
            f"{_short(model)} with {_short(strange[0])} in it. Allowed: a Keras model, a "
            "tf.Module, or what tape.gradient() was given."
        )
    if not variables:
        raise ValueError(
            f"Cannot clip the gradients of a model without variables, got {_short(model)}. Call "
            "the model once to build it, and check what is trainable."
        )
    if len(set(map(id, variables))) < len(variables):
        twice = next(v for i, v in enumerate(variables) if any(v is u for u in variables[:i]))
        raise ValueError(
            f"The variable {path_of(twice)!r} is given twice. Give each variable once; "
            "tape.gradient() sums over all of its uses."
        )
    return structure


def lay_out(clipper: Clipper, model: Any, variables: Sequence[Any]) -> Layout:
    """Group variables by a clipper's scope.

    Raises:
        ValueError: A variable's shape is not known, or see `clipping.groups.arrange`.
    """
    partial = [v for v in variables if not tf.TensorShape(v.shape).is_fully_defined()]
    if partial:
        raise ValueError(
            f"The variable {path_of(partial[0])!r} has shape {partial[0].shape}. Allowed: shapes "
            "without None."
        )
    shapes = tuple(tuple(v.shape) for v in variables)
    parameters = [
        Leaf(shape, layer, units.count(shape, units.last_axis(shape)))
        for shape, layer in zip(shapes, layers_of(model, variables), strict=True)
    ]
    cpu = all(map(on_cpu, variables))
    return Layout(tuple(variables), shapes, arrange(clipper, parameters), cpu)


def gradients_of(grads: Any, structure: Any) -> list[Gradient | None]:
    """The gradients of a structure of variables.

    Raises:
        TypeError: One is no tensor of floating-point or complex numbers.
        ValueError: The structures or shapes do not match, there is no gradient, or they are on
            several devices.
    """
    gradients = tf.nest.flatten(grads)
    if not _alike(grads, structure):
        raise ValueError(
            f"The gradients do not match the variables: {_described(grads)} against "
            f"{_described(structure)}. Give what tape.gradient(loss, model.trainable_variables) "
            f"returned. {UNTOUCHED}"
        )
    given = [g for g in gradients if g is not None]
    if not given:
        raise ValueError(
            f"There is no gradient to clip: all {len(gradients)} are None. Check that the loss "
            "depends on the variables, and was computed inside the tape."
        )
    for gradient, variable in zip(gradients, tf.nest.flatten(structure), strict=True):
        if gradient is not None:
            _check(gradient, variable)
    devices = {gradient.device for gradient in given} - {"", None}
    if len(devices) > 1:
        raise ValueError(
            f"The gradients are on several devices, {sorted(devices)!r}. Allowed: one. Move them "
            f"with tf.identity under tf.device(). {UNTOUCHED}"
        )
    return list(gradients)


def _alike(grads: Any, structure: Any) -> bool:
    """Whether two structures are the same; a list may stand for a tuple."""
    try:
        tf.nest.assert_same_structure(grads, structure, check_types=False)
    except (TypeError, ValueError):
        return False
    sequences = isinstance(grads, list | tuple) and isinstance(structure, list | tuple)
    if sequences and len(structure) == len(tf.nest.flatten(structure)):
        return True  # flat, as nearly always
    return {path for path, _ in leaves(grads)} == {path for path, _ in leaves(structure)}


def on_cpu(tensor: Any) -> bool:
    """Whether a tensor or variable is on a CPU."""
    held = tensor if hasattr(tensor, "device") else tensor.value  # in a variable of Keras
    return bool(tf.DeviceSpec.from_string(held.device).device_type == "CPU")


def _check(gradient: Any, variable: Any) -> None:
    if not isinstance(gradient, tf.Tensor | tf.IndexedSlices):
        raise TypeError(
            f"The gradient of {path_of(variable)!r} must be a tensor, tf.IndexedSlices or None, "
            f"got {_short(gradient)}. {UNTOUCHED}"
        )
    if not (gradient.dtype.is_floating or gradient.dtype.is_complex):
        raise TypeError(
            f"The gradient of {path_of(variable)!r} has dtype {gradient.dtype.name}. Allowed: "
            f"floating-point and complex dtypes. {UNTOUCHED}"
        )
    sparse = isinstance(gradient, tf.IndexedSlices)
    shape = gradient.values.shape if sparse else gradient.shape
    allowed = tf.TensorShape(variable.shape)
    if not (shape[1:].is_compatible_with(allowed[1:]) if sparse else shape == allowed) and not (
        shape.is_compatible_with(allowed) and not shape.is_fully_defined()
    ):
        raise ValueError(
            f"The gradient of {path_of(variable)!r} has shape {tuple(shape)}, the variable "
            f"{tuple(allowed)}. They must be equal. {UNTOUCHED}"
        )


def _is_variable(value: Any) -> bool:
    """A tf.Variable, or one of Keras, which holds one in ``value``."""
    return isinstance(value, tf.Variable) or isinstance(getattr(value, "value", None), tf.Variable)


def _described(structure: Any) -> str:
    return f"{type(structure).__name__} of {len(tf.nest.flatten(structure))}"


def _short(value: object) -> str:
    text = repr(value)
    short = text if len(text) <= 100 else f"{text[:99]}…"  # noqa: PLR2004 -- a line's length
    return f"{short} ({type(value).__name__})"
