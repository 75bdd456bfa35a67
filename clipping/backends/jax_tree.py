"""Trees of JAX arrays: their leaves with paths, the checks of them, and how they are grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr

from clipping import units
from clipping.clipper import Clipper
from clipping.groups import Groups, Leaf, arrange

UNTOUCHED = "The gradients are untouched."


class Leaves(NamedTuple):
    """What a tree holds.

    Attributes:
        arrays: In the order in which JAX flattens it.
        paths: The way to each, such as ``"params/Dense_0/kernel"``.
        tree: Its structure.
    """

    arrays: list[Any]
    paths: list[str]
    tree: Any

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each."""
        return [np.shape(array) for array in self.arrays]


def flatten(tree: Any, what: str, *, nones: bool = False) -> Leaves:
    """The leaves of a tree of gradients or parameters.

    Args:
        tree: Any tree that JAX knows.
        what: What to call it in an error.
        nones: Whether None is a leaf; else it is a branch without leaves, as everywhere in JAX.

    Raises:
        TypeError: A leaf is no array of floating-point or complex numbers.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)
    below = Counter(path[:-1] for path, _ in found)
    if not nones:
        found, structure = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in found:
        if leaf is not None:
            _check(leaf, f"{what}{keystr(path)}")
    paths = [_joined(path, below) for path, _ in found]
    return Leaves([leaf for _, leaf in found], paths, structure)


def lay_out(clipper: Clipper, params: Leaves) -> Groups:
    """Group parameters by a clipper's scope; a layer is the path above a leaf."""
    shapes = params.shapes
    layers = [path.rpartition("/")[0] for path in params.paths]
    sizes = [units.count(shape, units.last_axis(shape)) for shape in shapes]
    return arrange(clipper, [Leaf(*every) for every in zip(shapes, layers, sizes, strict=True)])


def check_paths(grads: Sequence[str], params: Sequence[str], owner: str) -> None:
    """Raise ValueError for gradients that are not those of the parameters.

    Args:
        grads: The paths of the gradients.
        params: Those of the parameters.
        owner: What to call the parameters in the error.
    """
    if list(grads) == list(params):
        return
    only_grads = sorted(set(grads) - set(params))
    only_params = sorted(set(params) - set(grads))
    raise ValueError(
        f"The tree of the gradients does not match that of {owner}: only gradients have "
        f"{_few(only_grads)}, only parameters {_few(only_params)}. {UNTOUCHED} Both must have the "
        "same paths; for gradients of a part of the parameters see optax.masked."
    )


def check_shapes(grads: Leaves, params: Leaves) -> None:
    """Raise ValueError for a gradient of another shape than its parameter."""
    every = zip(grads.paths, grads.arrays, params.shapes, strict=True)
    for path, gradient, shape in every:
        if gradient is not None and np.shape(gradient) != shape:
            raise ValueError(
                f"The gradient {path!r} has shape {np.shape(gradient)}, its parameter {shape}. "
                f"They must be equal. {UNTOUCHED}"
            )


def _check(leaf: Any, where: str) -> None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None and isinstance(leaf, float | complex):
        return
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        kind = type(leaf).__name__ if dtype is None else dtype
        hint = "" if dtype is None else " For integers among the parameters see optax.masked."
        raise TypeError(
            f"{where} must be an array of floating-point or complex numbers, got {kind}. "
            f"{UNTOUCHED}{hint}"
        )


def _joined(path: tuple[Any, ...], below: Counter[tuple[Any, ...]]) -> str:
    # Boxes, such as the variables of flax.nnx and nn.Partitioned, are no layer: nodes that have
    # nothing but a value.
    while path and path[-1] == GetAttrKey("value") and below[path[:-1]] == 1:
        path = path[:-1]
    return "/".join(_text(key) for key in path)


def _text(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _few(paths: list[str]) -> str:
    most = 8
    return repr(paths) if len(paths) <= most else f"{paths[:most]!r} and {len(paths) - most} more"
