"""The leaves of a pytree that JAX can differentiate by, and the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from regularizers.trees import Tree


class Leaves(NamedTuple):
    """A pytree taken apart."""

    variables: list[Any]
    """Those of floating-point or complex numbers, in order."""
    others: list[Any]
    """The rest, in order."""
    structure: Any
    is_variable: list[bool]
    """Of each leaf of the tree."""

    @classmethod
    def of(cls, tree: Tree) -> Self:
        """Any pytree, the registered types of other packages included."""
        leaves, structure = jax.tree_util.tree_flatten(tree)
        flags = [_is_inexact(leaf) for leaf in leaves]
        variables = [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
        others = [leaf for leaf, flag in zip(leaves, flags, strict=True) if not flag]
        return cls(variables, others, structure, flags)

    def tree(self, variables: Sequence[Any]) -> Tree:
        """The same pytree with other variables."""
        ours, others = iter(variables), iter(self.others)
        leaves = [next(ours if flag else others) for flag in self.is_variable]
        return jax.tree_util.tree_unflatten(self.structure, leaves)


def _is_inexact(leaf: Any) -> bool:
    if isinstance(leaf, float | complex):
        return True
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
