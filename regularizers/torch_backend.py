"""torch: gradients by autograd, everything on the tensors' device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from regularizers.checks import describe
from regularizers.records import Backend, Computation, Gradient, Value
from regularizers.trees import Tree, flatten


class TorchBackend:
    """See `regularizers.records.Backend`."""

    name = "torch"
    differentiates = True
    xp: Any = torch

    def owns(self, kind: type) -> bool:
        """Whether it is a tensor."""
        return issubclass(kind, torch.Tensor)

    def as_float(self, leaf: Any) -> Any:
        """float16, bfloat16 and integers become float32."""
        tensor = torch.as_tensor(leaf)
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    def snapshot(self, value: Any) -> Any:
        """A copy: a training loop may write to its loss (``loss /= accumulation``)."""
        return value.detach().clone()

    def variables(self, tree: Tree) -> list[Any]:
        """The leaves that require grad, each once.

        Raises:
            ValueError: There is none.
        """
        tensors = _tensors(tree)
        variables = {id(tensor): tensor for tensor in tensors if tensor.requires_grad}
        if not variables:
            raise ValueError(
                "track_grad_norms=True, but of the tensors that gradients would be taken by "
                f"({len(tensors)}) none requires grad. Call logprobs.requires_grad_() before the "
                "call, or give the parameters: wrt=model.parameters()."
            )
        return list(variables.values())

    def differentiate(
        self, function: Computation, logprobs: Tree, variables: list[Any]
    ) -> tuple[Value, Gradient]:
        """The graph is kept, because the caller's own ``backward()`` comes later."""
        value = function.compute(logprobs)
        if not getattr(value.scalar, "requires_grad", False):
            raise ValueError(
                f"track_grad_norms=True, but {function.label} returned {describe(value.scalar)}, "
                "through which torch cannot differentiate. Return a tensor computed from "
                "tensors that require grad, without detach(), item() or torch.no_grad(), "
                "or call with track_grad_norms=False."
            )
        with _grad_left_alone([*_tensors(logprobs), *variables]):
            gradient: Sequence[torch.Tensor | None] = torch.autograd.grad(
                value.scalar, variables, retain_graph=True, allow_unused=True
            )
        return value, [None if array is None else self.as_float(array) for array in gradient]

    def add_weighted(self, total: Any, weight: float, array: Any) -> Any:
        """In one pass; torch adds sparse to dense, but not the other way round."""
        if total.is_sparse and not array.is_sparse:
            total = total.to_dense()
        return torch.add(total, array, alpha=weight)

    def norm(self, gradient: Gradient) -> Any:
        """In float32 at least; 0.0 if the function depends on none of the variables."""
        norms = [_norm(array) for array in gradient if array is not None]
        if not norms:
            return 0.0
        device = norms[0].device
        return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))


def _tensors(tree: Tree) -> list[torch.Tensor]:
    return [leaf for leaf in flatten(tree).values() if isinstance(leaf, torch.Tensor)]


def _norm(array: torch.Tensor) -> Any:
    return torch.linalg.vector_norm(array.coalesce().values() if array.is_sparse else array)


@contextmanager
def _grad_left_alone(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    # autograd.grad writes to .grad nowhere but on tensors that retain_grad() was called on.
    before = [(tensor, tensor.grad) for tensor in tensors if tensor.retains_grad]
    try:
        yield
    finally:
        for tensor, grad in before:
            tensor.grad = grad


BACKEND: Final[Backend] = TorchBackend()
