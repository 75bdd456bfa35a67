"""Trees of tensors: nested mappings, lists and tuples, walked the way jax walks its pytrees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""A tensor, or a mapping, list, tuple or named tuple of trees, or a node of a type that was
registered with jax, where that is used. ``None`` has no leaves."""

Path: TypeAlias = tuple[Any, ...]
"""The keys and indices that lead from a tree to one of its leaves."""


def flatten(tree: Tree) -> dict[Path, Any]:
    """The leaves of a tree, in order, by their paths.

    Example:
        >>> flatten({"w": [1.0, 2.0], "b": None})
        {('w', 0): 1.0, ('w', 1): 2.0}
    """
    return {(): tree} if _is_torch_tensor(tree) else dict(_walk(tree, ()))


def map_leaves(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """A tree of the same shape with ``function`` applied to each leaf.

    Example:
        >>> map_leaves(abs, {"w": (-1.0, 2.0), "b": None})
        {'w': (1.0, 2.0), 'b': None}
    """
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, branch) for key, branch in tree.items()}
    if not isinstance(tree, list | tuple):
        opened = _open(tree)
        if opened is None:
            return function(tree)
        return opened[1]([map_leaves(function, branch) for branch in opened[0]])
    branches = [map_leaves(function, branch) for branch in tree]
    if hasattr(tree, "_fields"):
        return type(tree)(*branches)
    return branches if isinstance(tree, list) else tuple(branches)


def refill(tree: Tree, leaves: Iterable[Any]) -> Tree:
    """A tree of the same shape with other leaves, in the order of `flatten`.

    Example:
        >>> refill({"w": [1.0, 2.0], "b": None}, ["x", "y"])
        {'w': ['x', 'y'], 'b': None}
    """
    given = iter(leaves)
    return map_leaves(lambda _: next(given), tree)


def shapes(tree: Tree) -> dict[Path, tuple[int | None, ...]]:
    """The shape of each leaf; None for a length that compiled code does not know beforehand.

    Example:
        >>> import numpy as np
        >>> shapes({"w": np.ones((2, 3)), "b": 1.0})
        {('w',): (2, 3), ('b',): ()}
    """
    return {path: tuple(getattr(leaf, "shape", ())) for path, leaf in flatten(tree).items()}


def show_path(path: Path) -> str:
    """A place in a tree, for a message.

    Example:
        >>> show_path(("w", 0))
        "['w'][0]"
    """
    return "".join(f"[{key!r}]" for key in path)


def show_shapes(shapes: Mapping[Path, tuple[int | None, ...]]) -> str:
    """The shapes of a tree's leaves, for a message.

    Example:
        >>> show_shapes({("w",): (2, 3), ("b",): ()})
        "['w'] (2, 3), ['b'] ()"
    """
    named = (f"{show_path(path)} {shape}".strip() for path, shape in shapes.items())
    return ", ".join(named) or "none"


def _walk(tree: Tree, path: Path) -> Iterator[tuple[Path, Any]]:
    if tree is None:
        return
    if isinstance(tree, Mapping):
        branches = iter(tree.items())
    elif isinstance(tree, list | tuple):
        branches = iter(enumerate(tree))
    elif (opened := _open(tree)) is not None:
        branches = iter(enumerate(opened[0]))
    else:
        yield path, tree
        return
    for key, branch in branches:
        yield from _walk(branch, (*path, key))


def _open(tree: Any) -> tuple[list[Tree], Callable[[Iterable[Tree]], Tree]] | None:
    """The branches of a type that was registered with jax, and what puts others in their place."""
    if _is_torch_tensor(tree):
        return None  # torch.compile cannot look into what jax says
    jax = sys.modules.get("jax.tree_util")
    if jax is None or jax.all_leaves([tree]):
        return None
    branches, structure = jax.tree_flatten(tree, is_leaf=lambda branch: branch is not tree)
    return branches, structure.unflatten


def _is_torch_tensor(tree: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tree, torch.Tensor)
