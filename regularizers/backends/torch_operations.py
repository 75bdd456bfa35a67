# ruff: noqa: D102 -- the methods are documented on regularizers.operations.Operations
"""The operations of the penalties on torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from regularizers.operations import Array, Operations, Shape


class TorchOperations:
    """See `regularizers.operations.Operations`."""

    abs = staticmethod(torch.abs)
    exp = staticmethod(torch.exp)
    sqrt = staticmethod(torch.sqrt)
    cos = staticmethod(torch.cos)
    sum = staticmethod(torch.sum)

    def sign(self, x: Array) -> Array:
        # torch.sign is 0 at NaN.
        return torch.where(x.isnan(), x, torch.sign(x))

    def at_least(self, x: Array, least: float) -> Array:
        # The same as clamp_min, with a backward pass that is twice as fast on CPU.
        return torch.threshold(x, least, least)

    def clip(self, x: Array, least: float, most: float) -> Array:
        return torch.clamp(x, least, most)

    def difference(self, x: Array, y: Array, p: Array) -> Array:
        # The cast is much faster than a comparison on CPU.
        return torch.where(p.bool(), x - y, 0.0)

    def sum_of_rest(self, x: Array) -> Array:
        # Over no axes is over all of them, in torch.
        return x if x.ndim == 1 else torch.sum(x, dim=tuple(range(1, x.ndim)))

    def matmul(self, x: Array, y: Array) -> Array:
        if not torch.is_autocast_enabled(x.device.type):
            return torch.matmul(x, y)
        with torch.autocast(x.device.type, enabled=False):  # it would round to half precision
            return torch.matmul(x, y)

    def transpose(self, x: Array) -> Array:
        return torch.transpose(x, -1, -2)

    def identity(self, x: Array) -> Array:
        return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)

    def shape(self, x: Array) -> Shape:
        return tuple(x.shape)

    def divide(self, x: Array, count: int) -> Array:
        return x / max(count, 1)

    def promote(self, arrays: Sequence[Array]) -> Sequence[Array]:
        return arrays

    def gradient(
        self, function: Callable[[Sequence[Array]], Array], arrays: Sequence[Array]
    ) -> Sequence[Array]:
        if torch.is_inference_mode_enabled():
            raise ValueError(
                "torch does not differentiate inside torch.inference_mode(). Call inside "
                "torch.no_grad() instead."
            )
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            variables = [_apart(torch.as_tensor(array)) for array in arrays]
            outputs = function(variables).sum()
            if not outputs.requires_grad:
                return [torch.zeros_like(variable) for variable in variables]
            return torch.autograd.grad(
                outputs, variables, create_graph=again, materialize_grads=True
            )


def _apart(array: torch.Tensor) -> torch.Tensor:
    """The same values as a tensor that nothing else was computed from."""
    return array.view_as(array) if array.requires_grad else array.detach().requires_grad_()


OPERATIONS: Final[Operations] = TorchOperations()
