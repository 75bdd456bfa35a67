"""What gradients are taken by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from regularizers.backends import backend_for
from regularizers.records import Backend
from regularizers.trees import Tree, flatten


class Gradients(NamedTuple):
    """The variables, and the backend that takes the gradients."""

    backend: Backend
    variables: list[Any]

    @classmethod
    def by(cls, logprobs: Tree, wrt: Tree) -> Self:
        """Gradients by the tensors of ``wrt``, or of ``logprobs`` if that is None.

        Raises:
            TypeError: A leaf is no tensor.
            ValueError: No tensor can have a gradient, or ``wrt`` is given to a framework
                that does not differentiate.
        """
        tree = logprobs if wrt is None else wrt
        if isinstance(tree, Iterator):
            tree = list(tree)  # model.parameters() is a generator
        leaves = flatten(tree).values()
        if not leaves:
            raise ValueError(
                f"track_grad_norms=True, but there is no tensor to take gradients by in {tree!r}. "
                "Give logprobs, or the parameters: wrt=model.parameters()."
            )
        backend = backend_for(leaves)
        if wrt is not None and not backend.differentiates:
            raise ValueError(
                f"wrt= was given {backend.name} arrays, but {backend.name} does not differentiate. "
                "Leave wrt out: the gradient functions return the gradient by logprobs."
            )
        return cls(backend, backend.variables(tree))
