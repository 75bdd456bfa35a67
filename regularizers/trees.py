"""Trees of tensors: nested mappings, lists and tuples, walked the way jax walks its pytrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""A tensor, or a mapping, list, tuple or named tuple of trees. ``None`` has no leaves."""

Path: TypeAlias = tuple[Any, ...]
"""The keys and indices that lead from a tree to one of its leaves."""


def flatten(tree: Tree) -> dict[Path, Any]:
    """The leaves of a tree, in order, by their paths.

    Example:
        >>> flatten({"w": [1.0, 2.0], "b": None})
        {('w', 0): 1.0, ('w', 1): 2.0}
    """
    return dict(_walk(tree, ()))


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
        return function(tree)
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


def _walk(tree: Tree, path: Path) -> Iterator[tuple[Path, Any]]:
    if tree is None:
        return
    if isinstance(tree, Mapping):
        branches = iter(tree.items())
    elif isinstance(tree, list | tuple):
        branches = iter(enumerate(tree))
    else:
        yield path, tree
        return
    for key, branch in branches:
        yield from _walk(branch, (*path, key))
