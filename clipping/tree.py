"""Nested dictionaries, lists and tuples of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Path = tuple[Any, ...]


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What a tree holds that is no dictionary, list or tuple, each with the way to it."""
    children = _children(tree)
    if children is None:
        yield path, tree
        return
    for key, child in children:
        yield from leaves(child, (*path, key))


def rebuild(tree: Any, replaced: Iterator[Any]) -> Any:
    """A tree of the same structure, with other leaves, in the order of `leaves`."""
    children = _children(tree)
    if children is None:
        return next(replaced)
    new = [rebuild(child, replaced) for _, child in children]
    if isinstance(tree, dict):
        copy = tree.copy()
        copy.update(zip(tree, new, strict=True))
        return copy
    if hasattr(tree, "_fields"):
        return type(tree)(*new)
    return type(tree)(new)


def locate(path: Path) -> str:
    """A path as one would write it: ``['layer']['w'][0]``."""
    return "".join(f"[{key!r}]" for key in path)


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    return None
